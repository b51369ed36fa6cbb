"""Every error that people meet names its cause and what to do, in both languages."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.wechat.explanations import explain, explain_client_error

_HAN = re.compile(r"[\u4e00-\u9fff]")
_OTHERWISE = explain("NO_SUCH_CODE", "")


@pytest.mark.parametrize(
    ("codes", "english", "chinese"),
    [
        (("ORDERPAID", "ORDER_PAID"), "already paid", "已支付"),
        (("ORDERCLOSED", "ORDER_CLOSED"), "closed or has expired", "已关闭"),
        (("OUT_TRADE_NO_USED",), "other details", "首次请求"),
        (("NOTENOUGH", "NOT_ENOUGH"), "not enough money", "余额不足"),
        (("SYSTEMERROR", "SYSTEM_ERROR", "BANK_ERROR", "BIZERR_NEED_RETRY"), "Nothing needs to be changed", "系统繁忙"),
        (("FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED"), "too often", "频繁"),
        (("NOAUTH", "NO_AUTH"), "Open the product", "权限未开通"),
        (("APPID_MCHID_NOT_MATCH",), "not bound", "未绑定"),
        (("USER_NOT_EXIST", "USER_NOT_EXISTS"), "wechatLogin", "重新登录"),
        (("OPENID_MISMATCH",), "one app id only", "openid 与 appid 不匹配"),
        (("USER_ACCOUNT_ABNORMAL", "ACCOUNT_ERROR"), "another account", "账户异常"),
        (("RULE_LIMIT", "TRADE_ERROR", "REQUEST_BLOCKED"), "risk control", "风控"),
        (("SIGNERROR", "SIGN_ERROR"), "serial_no", "证书序列号"),
        (("PARAM_ERROR",), "a field", "参数错误"),
        (("ORDERNOTEXIST", "ORDER_NOT_EXIST"), "no order of this number", "订单不存在"),
        (("RESOURCE_NOT_EXISTS",), "does not have", "资源不存在"),
        (("TRADE_OVERDUE",), "older than a year", "一年"),
        (("MCH_NOT_EXISTS", "MCHID_NOT_EXIST"), "merchant number", "商户号不存在"),
        (("APPID_NOT_EXIST",), "app id", "appid 不存在"),
        (("LACK_PARAMS",), "required field", "缺少参数"),
        (("XML_FORMAT_ERROR", "POST_DATA_EMPTY", "NOT_UTF8", "REQUIRE_POST_METHOD"), "fault of this software", "程序"),
        (("INVALID_REQUEST",), "as a whole", "请求参数"),
        (("TRADE_STATE_ERROR",), "state does not allow", "状态"),
        (("USERPAYING", "USER_PAYING"), "entering the password", "支付中"),
    ],
)
def test_every_code_in_both_spellings(codes: tuple[str, ...], english: str, chinese: str) -> None:
    for code in codes:
        explained = explain(code, "")
        assert english in explained.english
        assert chinese in explained.chinese


@pytest.mark.parametrize(
    ("code", "message", "english"),
    [
        ("INVALID_REQUEST", "请求重入时，参数与首次请求时不一致", "other details"),
        ("INVALID_REQUEST", "201 商户订单号重复", "other details"),
        ("INVALID_REQUEST", "无效的openid", "one app id only"),
        ("PARAM_ERROR", "无效的 sub_openid", "one app id only"),
        ("PARAM_ERROR", "appid与openid不匹配", "one app id only"),
        ("INVALID_REQUEST", "openid和appid不匹配", "one app id only"),
        ("APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配，请检查后再试", "not bound"),
        ("PARAM_ERROR", "商户号mch_id与appid不匹配", "not bound"),
        ("NO_AUTH", "商户号和appid没有绑定关系", "not bound"),
        ("FAIL", "受理关系不存在", "Cloud Run console"),
        ("NO_AUTH", "商户号该产品权限未开通，请前往商户平台>产品中心检查后重试", "Open the product"),
        ("SIGN_ERROR", "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟", "clock"),
        ("SIGN_ERROR", "签名错误，请检查后再试", "serial_no"),
        ("RESOURCE_NOT_EXISTS", "无可用的平台证书，请在商户平台-API安全申请使用微信支付公钥", "mode v3"),
        ("FAIL", "签名错误", "api_key"),
        ("", "JSAPI缺少参数 total_fee", "least 0.01"),
    ],
)
def test_a_message_says_more_than_its_code(code: str, message: str, english: str) -> None:
    assert english in explain(code, message).english


def test_a_wrong_clock_is_told_from_a_wrong_key() -> None:
    assert "clock" in explain("SIGN_ERROR", "签名错误", clock_differs=True).english
    assert "five minutes" in explain("SIGN_ERROR", "签名错误", clock_differs=True).english
    assert "private_key" in explain("SIGN_ERROR", "签名错误").english
    assert explain("PARAM_ERROR", "", clock_differs=True) == explain("PARAM_ERROR", "")


@pytest.mark.parametrize(
    ("message", "english"),
    [
        ("支付验证签名失败", "refused the page's signature"),
        ("get_brand_wcpay_request:fail:调用支付JSAPI缺少参数: total_fee", "prepay_id"),
        ("调用支付JSAPI缺少参数：total_fee", "least 0.01"),
        ("JSAPI缺少参数 total_fee", "least 0.01"),
        ("JSAPI缺少参数 appId", "bound to the merchant"),
        ("requestPayment:fail JSAPI缺少参数: appId", "bound to the merchant"),
        ("JSAPI缺少参数 package", "prepay_id="),
        ("JSAPI缺少参数 timeStamp", "left out a field"),
        ("当前页面的URL未注册:https://shop.example.com/", "payment directories"),
        ("redirect_uri域名与后台配置不一致，错误码:10003", "web authorisation domain"),
        ("下单账号与支付账号不一致，请核实后再支付", "Another person"),
        ("商家订单信息有误，请重新下单支付", "expired"),
        ("该订单已过期，请重新下单", "expired"),
        ("支付请求已失效，请重新发起支付", "expired"),
        ("商家参数格式有误，请联系商家解决", "Referer"),
        ("商家存在未配置的参数，请联系商家解决", "registered for H5"),
        ("requestPayment:fail no permission", "发货管理"),
        ("requestPayment:fail jsapi has no permission, event=requestPayment", "发货管理"),
        ("system:access_denied", "outside WeChat"),
        ("请在微信外打开订单，进行支付", "outside WeChat"),
        ("requestPayment:fail cancel", "cancelled"),
        ("get_brand_wcpay_request:cancel", "cancelled"),
        ("get_brand_wcpay_request:fail", "could not start"),
        ("无效的openid", "one app id only"),
        ("受理关系不存在", "authorised"),
    ],
)
def test_every_text_a_page_meets(message: str, english: str) -> None:
    explained = explain_client_error(message)
    assert explained is not None
    assert english in explained.english
    assert _HAN.search(explained.chinese)


@pytest.mark.parametrize("message", ["", "get_brand_wcpay_request:ok", "requestPayment:ok", "hello"])
def test_what_is_no_error_is_not_explained(message: str) -> None:
    assert explain_client_error(message) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_every_refusal_is_explained_in_both_languages(code: str, message: str) -> None:
    explained = explain(code, message)
    assert len(explained.english) > 20
    assert _HAN.search(explained.chinese)
    explain_client_error(message)


def test_an_unknown_code_gets_the_general_sentence() -> None:
    assert _OTHERWISE.english.startswith("WeChat refused the request")
    assert explain("", "") == _OTHERWISE


def test_a_long_message_is_read_in_no_time() -> None:
    for text in ("openid" * 20_000, "appid" * 20_000, "mchid" * 20_000, "缺少参数" * 20_000, " " * 100_000):
        explain("X", text)
        explain_client_error(text)
