"""WeChat Pay's APIv2 on one side, our contract on the other."""

from app.providers.wechat.v2.dialect import V2Dialect

__all__ = ["V2Dialect"]
