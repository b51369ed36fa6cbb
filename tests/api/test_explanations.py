"""Errors that only a page sees are explained by the API, to anybody."""

import pytest

from tests.api.conftest import Api

QUERY = "query ($message: String!) { explainWechatError(message: $message) { explanation explanationZh } }"


@pytest.mark.parametrize(
    ("message", "english", "chinese"),
    [
        ("JSAPI缺少参数 total_fee", "prepay_id", "原样传入"),
        ("JSAPI缺少参数 appId", "app", "appid"),
        ("get_brand_wcpay_request:fail 当前页面的URL未注册:https://shop.example/pay", "", "支付授权目录"),
        ("requestPayment:fail jsapi has no permission", "", "小程序"),
    ],
)
async def test_a_text_of_wechats_is_explained_without_a_token(
    shared_api: Api, message: str, english: str, chinese: str
) -> None:
    answer = await shared_api.post(QUERY, {"message": message}, sub=None)
    found = answer["data"]["explainWechatError"]
    assert english in found["explanation"]
    assert chinese in found["explanationZh"]


@pytest.mark.parametrize("message", ["", "hello", "get_brand_wcpay_request:ok", "x" * 20_000])
async def test_what_is_no_error_has_no_explanation(shared_api: Api, message: str) -> None:
    answer = await shared_api.post(QUERY, {"message": message}, sub=None)
    assert answer == {"data": {"explainWechatError": None}}
