"""Alipay: its protocol on one side, our contract on the other."""

from app.providers.alipay.provider import AlipayProvider

__all__ = ["AlipayProvider"]
