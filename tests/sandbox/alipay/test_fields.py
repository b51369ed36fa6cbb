"""Business fields: one row per rule, exact sub_code, no trade left behind. Accepted edges beside the refused ones."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.sandbox.alipay.client import AlipayClient, beijing, new_number, now_beijing
from tests.sandbox.handle import SandboxHandle

INVALID = ("40004", "ACQ.INVALID_PARAMETER")
GOODS = {"goods_id": "1", "goods_name": "咖啡", "quantity": 1, "price": "0.02"}


@dataclass(frozen=True, slots=True)
class Row:
    """`fields` replace those of a correct precreate; None takes one away."""

    rule: str
    fields: dict[str, Any]
    outcome: tuple[str, str] = INVALID


REFUSED = [
    Row("out_trade_no missing", {"out_trade_no": None}),
    Row("out_trade_no empty", {"out_trade_no": ""}),
    Row("out_trade_no of 65 characters", {"out_trade_no": "x" * 65}),
    Row("out_trade_no with a hyphen", {"out_trade_no": "a-b"}),
    Row("out_trade_no in full-width digits", {"out_trade_no": "１２３"}),
    Row("out_trade_no as a number", {"out_trade_no": 12345}),
    Row("total_amount missing", {"total_amount": None}),
    Row("total_amount zero", {"total_amount": "0.00"}),
    Row("total_amount negative", {"total_amount": "-0.01"}),
    Row("total_amount with three decimals", {"total_amount": "0.001"}),
    Row("total_amount in exponents", {"total_amount": "1e2"}),
    Row("total_amount in exponents as a number", {"total_amount": 1e22}),
    Row("total_amount in full-width digits", {"total_amount": "１.００"}),
    Row("total_amount with a separator", {"total_amount": "1,000.00"}),
    Row("total_amount with a leading zero", {"total_amount": "01.00"}),
    Row("total_amount with a space", {"total_amount": " 1.00"}),
    Row("total_amount NaN as a text", {"total_amount": "NaN"}),
    Row("total_amount of twelve characters", {"total_amount": "100000000.01"}),
    Row("total_amount above the limit", {"total_amount": "100000001"}, ("40004", "ACQ.TOTAL_FEE_EXCEED")),
    Row("subject missing", {"subject": None}),
    Row("subject of 257 characters", {"subject": "咖" * 257}),
    Row("subject with a slash", {"subject": "咖啡/茶"}),
    Row("subject with an equals sign", {"subject": "a=b"}),
    Row("subject with an ampersand", {"subject": "a&b"}),
    Row("body of 129 characters", {"body": "x" * 129}),
    Row("body that looks like an attack", {"body": "total_fee=1"}, ("40002", "isv.suspected-attack")),
    Row("product_code of another product", {"product_code": "FAST_INSTANT_TRADE_PAY"}),
    Row("unknown field", {"out_trade_num": "1"}),
    Row("field of another method", {"qr_pay_mode": "2"}),
    Row("goods_detail as a text", {"goods_detail": json.dumps([GOODS])}),
    Row("goods_detail without a price", {"goods_detail": [{"goods_id": "1", "goods_name": "x", "quantity": 1}]}),
    Row("extend_params as a text", {"extend_params": "{}"}),
    Row("extend_params with an unknown key", {"extend_params": {"sys_service_provider": "2088"}}),
    Row("both pay channel lists", {"enable_pay_channels": "balance", "disable_pay_channels": "credit"}),
    Row("passback_params not URL-encoded", {"passback_params": "a=1&b=2"}),
    Row("passback_params of 513 characters", {"passback_params": "x" * 513}),
    Row("seller_id of another merchant", {"seller_id": "2088999999999999"}, ("40004", "ACQ.PARTNER_ERROR")),
    Row("timeout_express with a fraction", {"timeout_express": "1.5h"}),
    Row("timeout_express zero", {"timeout_express": "0m"}),
    Row("timeout_express of 16 days", {"timeout_express": "16d"}),
    Row("timeout_express of seven characters", {"timeout_express": "100000m"}),
    Row("timeout_express without a unit", {"timeout_express": "90"}),
    Row("time_expire in another form", {"time_expire": "2026-11-22 08:00"}),
    Row("time_expire on a day that is none", {"time_expire": "2026-02-30 08:00:00"}),
    Row("time_expire in 16 days", {"time_expire": now_beijing(days=16)}),
    Row(
        "time_expire in the past",
        {"time_expire": now_beijing(minutes=-5)},
        ("40004", "ACQ.NOW_TIME_AFTER_EXPIRE_TIME_ERROR"),
    ),
]

ACCEPTED = [
    Row("out_trade_no of 64 characters", {"out_trade_no": "x" * 64}),
    Row("the smallest amount", {"total_amount": "0.01"}),
    Row("the largest amount", {"total_amount": "100000000"}),
    Row("one decimal", {"total_amount": "1.5"}),
    Row("an amount as a JSON number", {"total_amount": 0.02}),
    Row("subject of 256 characters", {"subject": "咖" * 256}),
    Row("goods_detail", {"goods_detail": [GOODS]}),
    Row("extend_params", {"extend_params": {"sys_service_provider_id": "2088511833207846"}}),
    Row("encoded passback_params", {"passback_params": "a%3D1%26b%3D2"}),
    Row("order code product", {"product_code": "QR_CODE_OFFLINE"}),
    Row("face to face product", {"product_code": "FACE_TO_FACE_PAYMENT"}),
    Row("its own seller_id", {"seller_id": "2088720000000001"}),
    Row("timeout_express in minutes", {"timeout_express": "90m"}),
    Row("timeout_express until midnight", {"timeout_express": "1c"}),
    Row("timeout_express of 15 days", {"timeout_express": "15d"}),
]


def changed(order: dict[str, object], fields: dict[str, Any]) -> dict[str, object]:
    return {name: value for name, value in (order | fields).items() if value is not None}


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.rule)
async def test_precreate_refuses(sandbox: SandboxHandle, alipay: AlipayClient, row: Row) -> None:
    answer = await alipay.execute(
        "alipay.trade.precreate", changed(alipay.order(new_number(), product="qr"), row.fields)
    )
    assert (answer.fields["code"], answer.fields["sub_code"]) == row.outcome
    assert ("sign" in answer.envelope) == (row.outcome[0] == "40004")
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.rule)
async def test_precreate_accepts(alipay: AlipayClient, row: Row) -> None:
    order = changed(alipay.order(new_number(), product="qr"), row.fields)
    answer = await alipay.succeed("alipay.trade.precreate", order)
    assert answer["out_trade_no"] == order["out_trade_no"]


@pytest.mark.parametrize(
    ("biz_content", "sub_code"),
    [
        ("", "isv.invalid-parameter"),
        ("not json", "isv.illegal-json"),
        ("[]", "isv.illegal-json"),
        ('"text"', "isv.illegal-json"),
        ('{"out_trade_no":"1","out_trade_no":"2"}', "isv.illegal-json"),
        ('{"total_amount":NaN}', "isv.illegal-json"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "isv.illegal-json"),
    ],
    ids=["empty", "no JSON", "a list", "a text", "a key twice", "NaN", "too deep"],
)
async def test_biz_content_that_is_no_json_object_is_refused(
    alipay: AlipayClient, biz_content: str, sub_code: str
) -> None:
    answer = await alipay.execute("alipay.trade.precreate", biz_content)
    assert answer.outcome == ("alipay_trade_precreate_response", "40002", sub_code)
    assert "sign" not in answer.envelope


@pytest.mark.parametrize("method", ["alipay.trade.query", "alipay.trade.close"])
@pytest.mark.parametrize(
    "content",
    [{}, {"out_trade_no": "a", "total_amount": "1.00"}, {"trade_no": "abc"}, {"out_trade_no": "x" * 65}],
    ids=["no number", "unknown field", "trade_no with letters", "number too long"],
)
async def test_query_and_close_refuse(alipay: AlipayClient, method: str, content: dict[str, object]) -> None:
    assert await alipay.refused(method, content) == "ACQ.INVALID_PARAMETER"


@pytest.mark.parametrize(
    ("product", "fields"),
    [
        ("page", {"product_code": "QUICK_WAP_WAY"}),
        ("page", {"qr_pay_mode": "9"}),
        ("page", {"integration_type": "H5"}),
        ("page", {"quit_url": "https://shop.example/"}),
        ("page", {"agreement_sign_params": {"period_rule_params": {}}}),
        ("wap", {"product_code": "FAST_INSTANT_TRADE_PAY"}),
        ("wap", {"qr_pay_mode": "2"}),
        ("wap", {"quit_url": "javascript:alert(1)"}),
        ("wap", {"quit_url": "https://shop.example/" + "x" * 400}),
    ],
)
async def test_a_page_with_a_wrong_field_shows_the_error_to_the_payer(
    sandbox: SandboxHandle, alipay: AlipayClient, product: str, fields: dict[str, object]
) -> None:
    number = new_number()
    response = await alipay.http.get(alipay.page_url(number, product=product, biz=fields))
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html;charset=gbk")
    assert "ACQ.INVALID_PARAMETER" in response.content.decode("gbk")
    assert not await sandbox.has_trade(number)


async def test_a_missing_product_code_is_refused(alipay: AlipayClient) -> None:
    order = alipay.order(new_number())
    del order["product_code"]
    parameters = alipay.signed("alipay.trade.page.pay", order)
    response = await alipay.http.get(alipay.account["gateway"], params=parameters)
    assert "product_code 不能为空" in response.content.decode("gbk")


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [(59, "ACQ.INVALID_PARAMETER"), (60, None), (15 * 86400, None), (15 * 86400 + 1, "ACQ.INVALID_PARAMETER")],
)
async def test_time_expire_is_one_minute_to_fifteen_days_after_the_timestamp(
    alipay: AlipayClient, seconds: int, outcome: str | None
) -> None:
    made_at = datetime.now(UTC)
    order = alipay.order(new_number(), product="qr", time_expire=beijing(made_at + timedelta(seconds=seconds)))
    answer = await alipay.execute("alipay.trade.precreate", order, changes={"timestamp": beijing(made_at)})
    assert answer.fields.get("sub_code") == outcome
