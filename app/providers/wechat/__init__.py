"""WeChat Pay: its protocols on one side, our contract on the other."""

from app.providers.wechat.provider import WechatProvider

__all__ = ["WechatProvider"]
