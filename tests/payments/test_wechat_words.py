"""What WeChat refuses is explained where it appears: cause and fix, in both languages."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.errors import InvalidInput, ProviderRejected, ProviderUnavailable
from tests.fixtures.market import Market

PREPAY = {"v3": "wechat.v3.prepay", "v2": "wechat.v2.unifiedorder"}

# (mode, code, WeChat's own words) → what the explanation names, in English and in Chinese.
REFUSED = [
    ("v3", "APPID_MCHID_NOT_MATCH", None, "bind", "关联"),
    ("v2", "APPID_MCHID_NOT_MATCH", None, "bind", "关联"),
    ("v3", "SIGN_ERROR", None, "private_key", "签名"),
    ("v2", "SIGNERROR", None, "api_key", "签名"),
    ("v3", "NO_AUTH", None, "product", "产品"),
    ("v2", "LACK_PARAMS", "JSAPI缺少参数 total_fee", "prepay_id", "prepay_id"),
    ("v2", "LACK_PARAMS", "JSAPI缺少参数 appId", "appId", "appId"),
    ("v3", "PARAM_ERROR", "JSAPI缺少参数 total_fee", "prepay_id", "prepay_id"),
]
# The number is taken: nobody may be told to pay again before it is known what became of it.
DOUBTED = [
    ("v3", "ORDER_PAID", None, "already paid", "已支付"),
    ("v2", "ORDERPAID", None, "already paid", "已支付"),
    ("v3", "ORDER_CLOSED", None, "closed", "关闭"),
    ("v2", "ORDERCLOSED", None, "closed", "关闭"),
    ("v3", "INVALID_REQUEST", "请求重入时，参数与首次请求时不一致", "other details", "参数与首次请求时不一致"),
    ("v3", "OUT_TRADE_NO_USED", None, "used", "订单号"),
    ("v2", "OUT_TRADE_NO_USED", None, "used", "订单号"),
]


async def fault(market: Market, mode: str, code: str, message: str | None) -> None:
    words = {} if message is None else {"message": message}
    await market.control("POST", "/faults", method=PREPAY[mode], kind="business_error", code=code, **words)


@pytest.mark.parametrize(("mode", "code", "message", "english", "chinese"), REFUSED)
async def test_a_refusal_names_cause_and_fix(
    market: Market, mode: str, code: str, message: str | None, english: str, chinese: str
) -> None:
    await fault(market, mode, code, message)
    with pytest.raises(ProviderRejected) as refused:
        await market.create("WECHAT_JSAPI", mode=mode)
    assert refused.value.extra["provider"]["code"] == code
    assert english in refused.value.message
    assert chinese in refused.value.message_zh
    row = await market.shop.connection.fetchrow("select status, failure from shouyin.payment")
    assert row is not None
    assert row["status"] == "FAILED"
    found = await market.shop.runtime.payments.by_ids([int(refused.value.extra["paymentId"])])
    (payment,) = found.values()
    assert payment.failure is not None
    assert (payment.failure.provider_code, payment.failure.explanation_zh) == (code, refused.value.message_zh)


@pytest.mark.parametrize(("mode", "code", "message", "english", "chinese"), DOUBTED)
async def test_a_number_that_is_taken_is_explained_while_it_is_asked_about(
    market: Market, mode: str, code: str, message: str | None, english: str, chinese: str
) -> None:
    await fault(market, mode, code, message)
    payment = await market.create("WECHAT_JSAPI", mode=mode)
    assert (payment.checking, payment.final, payment.version) == (True, False, 2)
    assert payment.failure is not None
    assert (payment.failure.code, payment.failure.provider_code) == ("OUTCOME_UNKNOWN", code)
    assert english in payment.failure.explanation
    assert chinese in payment.failure.explanation_zh
    # The sandbox made nothing of it: found out, the payment goes on and the words are gone.
    await market.advance(timedelta(minutes=2))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.failure, found.action is not None) == ("PENDING", None, True)


@pytest.mark.parametrize(("mode", "code"), [("v3", "FREQUENCY_LIMITED"), ("v2", "FREQUENCY_LIMITED")])
async def test_a_rate_limit_is_explained_and_charges_nothing(market: Market, mode: str, code: str) -> None:
    await fault(market, mode, code, None)
    with pytest.raises(ProviderUnavailable) as refused:
        await market.create("WECHAT_NATIVE", mode=mode)
    assert refused.value.extra["provider"]["code"] == code
    assert "too often" in refused.value.message
    assert "频" in refused.value.message_zh
    assert (await market.control("GET", "/trades"))["trades"] == []


async def test_a_deployment_s_usual_expiry_is_cut_to_what_a_provider_takes(market: Market) -> None:
    """Nobody asked for more than WeChat's two hours: an order of a day is Alipay's to have."""
    market.shop.config = replace(market.shop.config, default_expiry=timedelta(days=1))
    other = await market.shop.open()
    for method, expected in (("WECHAT_NATIVE", timedelta(hours=2)), ("ALIPAY_PAGE", timedelta(days=1))):
        payment = await market.create(method, other)
        assert payment.expires_at - payment.created_at == expected
    with pytest.raises(InvalidInput) as refused:
        await market.create("WECHAT_NATIVE", other, expires_in=timedelta(days=1))
    assert refused.value.field == "expiresInSeconds"
