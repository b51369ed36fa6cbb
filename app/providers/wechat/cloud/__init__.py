"""WeChat's cloud pay on one side, our contract on the other."""

from app.providers.wechat.cloud.dialect import CloudDialect

__all__ = ["CloudDialect"]
