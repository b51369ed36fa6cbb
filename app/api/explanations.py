"""What a text means that WeChat showed to a page: some of its errors never pass through a server."""

import strawberry

from app.providers.wechat.explanations import explain_client_error


@strawberry.type(description="What WeChat's text means and what to do about it.")
class WechatErrorExplanation:
    explanation: str
    explanation_zh: str


@strawberry.type
class ExplanationQuery:
    @strawberry.field(
        description=(
            "What an error of `wx.requestPayment` or `WeixinJSBridge` means, such as JSAPI缺少参数 total_fee; null "
            "for a text that is no known error. Needs no token."
        )
    )
    def explain_wechat_error(self, message: str) -> WechatErrorExplanation | None:
        found = explain_client_error(message)
        return (
            None if found is None else WechatErrorExplanation(explanation=found.english, explanation_zh=found.chinese)
        )
