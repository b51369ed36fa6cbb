"""APIv3: JSON, RSA signatures, AES-GCM notifications."""

from app.providers.wechat.v3.dialect import V3Dialect

__all__ = ["V3Dialect"]
