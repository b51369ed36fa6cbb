"""The notice of an order of APIv2: what it says, what acknowledges it, when it comes again, and what forgers send."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.v2_client import V2Client, acknowledgement, compact, from_xml, new_number, signature

OPENID = "oTest_invented-openid_00000C"
GAPS_S = [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600]


@pytest.fixture(autouse=True)
def _acknowledging(merchant: MerchantServer) -> None:
    merchant.otherwise = (200, acknowledgement())


@pytest.fixture
def v2(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> V2Client:
    return V2Client(accounts["v2"], sandbox.http)


@pytest.fixture
def partner(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> V2Client:
    return V2Client(accounts["v2_partner"], sandbox.http)


async def ordered(client: V2Client, merchant: MerchantServer, **fields: str) -> str:
    number = new_number()
    order = client.order(number, "JSAPI", openid=OPENID, notify_url=merchant.notify_url, **fields)
    await client.succeed("unifiedorder", order)
    return number


@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
async def test_a_payment_is_told_in_signed_xml(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer, sign_type: str
) -> None:
    v2.sign_type = sign_type
    number = await ordered(v2, merchant, attach="uid=7 & 茶")
    [notice] = await sandbox.pay(number)
    [received] = merchant.received
    assert received.headers["content-type"] == "text/xml; charset=utf-8"
    trade = await sandbox.trade(number)
    fields = v2.read_notice(received.body)
    assert fields.pop("sign") == signature(fields, v2.account["api_key"], sign_type)
    assert fields.pop("sign_type", "MD5") == sign_type
    assert fields == {
        "return_code": "SUCCESS",
        "result_code": "SUCCESS",
        "appid": v2.account["appid"],
        "mch_id": v2.account["mch_id"],
        "nonce_str": notice["notify_id"].replace("-", ""),
        "openid": OPENID,
        "is_subscribe": "N",
        "trade_type": "JSAPI",
        "bank_type": "OTHERS",
        "total_fee": "2",
        "fee_type": "CNY",
        "cash_fee": "2",
        "cash_fee_type": "CNY",
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "attach": "uid=7 & 茶",
        "time_end": compact(datetime.fromisoformat(trade["paid_at"])),
    }
    assert notice["state"] == "ACKNOWLEDGED"


async def test_a_partners_notice_names_both_sides(
    partner: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    number = await ordered(partner, merchant)
    await sandbox.pay(number)
    fields = partner.read_notice(merchant.received[0].body)
    assert (fields["mch_id"], fields["sub_mch_id"]) == (partner.account["mch_id"], partner.account["sub_mch_id"])
    assert (fields["openid"], "sub_openid" in fields) == (OPENID, False)


@pytest.mark.parametrize(
    "answer",
    [
        (200, acknowledgement("FAIL")),
        (500, acknowledgement()),
        (204, b""),
        (200, b""),
        (200, b"success"),
        (200, b'{"code":"SUCCESS"}'),
        (200, b"<xml><return_code>success</return_code></xml>"),
        (200, b"<xml><return_code>SUCCESS</return_code>"),
        (302, acknowledgement()),
        None,
    ],
)
async def test_anything_but_the_answer_is_no_acknowledgement(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer, answer: tuple[int, bytes] | None
) -> None:
    merchant.answers = [answer]
    [notice] = await sandbox.pay(await ordered(v2, merchant))
    assert (notice["state"], len(merchant.received)) == ("WAITING", 1)
    await sandbox.advance(15)
    assert [known["state"] for known in await sandbox.notices()] == ["ACKNOWLEDGED"]
    assert merchant.received[0].body == merchant.received[1].body


async def test_white_space_round_the_answer_is_fine(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    merchant.otherwise = (200, b"<xml>\n  <return_code>SUCCESS</return_code>\n</xml>\n")
    [notice] = await sandbox.pay(await ordered(v2, merchant))
    assert notice["state"] == "ACKNOWLEDGED"


async def test_an_unanswered_notice_comes_sixteen_times_in_a_day(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    merchant.otherwise = (200, acknowledgement("FAIL"))
    await sandbox.pay(await ordered(v2, merchant))
    assert (await sandbox.advance(3 * 86400))["deliveries"] == 15
    [notice] = await sandbox.notices()
    due = [datetime.fromisoformat(attempt["due_at"]) for attempt in notice["attempts"]]
    assert [late - early for early, late in pairwise(due)] == [timedelta(seconds=s) for s in GAPS_S]
    assert (notice["state"], len(merchant.received)) == ("GIVEN_UP", 16)


async def test_a_failed_attempt_and_a_close_are_not_told(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    number = await ordered(v2, merchant)
    await sandbox.control("POST", f"/trades/{number}/fail")
    await sandbox.control("POST", f"/trades/{number}/close")
    assert (await sandbox.notices(), merchant.received) == ([], [])


async def test_a_late_payment_is_told(v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer) -> None:
    number = await ordered(v2, merchant)
    await v2.succeed("closeorder", {"out_trade_no": number})
    await sandbox.pay(number, late=True)
    assert v2.read_notice(merchant.received[0].body)["result_code"] == "SUCCESS"
    assert (await v2.query(number))["trade_state"] == "SUCCESS"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"amount": "0.03"}, {"total_fee": "3", "cash_fee": "3"}),
        ({"app_id": "wx0000000000000000"}, {"appid": "wx0000000000000000"}),
        ({"seller_id": "1900009999"}, {"mch_id": "1900009999"}),
        ({"payer": "oSomebody_else_000000000000D"}, {"openid": "oSomebody_else_000000000000D"}),
        ({"fields": {"result_code": "FAIL", "coupon_fee_0": "1"}}, {"result_code": "FAIL", "coupon_fee_0": "1"}),
    ],
)
async def test_a_notice_can_lie_under_a_good_signature(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer, options: dict[str, object], told: dict[str, str]
) -> None:
    number = await ordered(v2, merchant)
    await sandbox.pay(number, **options)
    fields = v2.read_notice(merchant.received[0].body)
    assert {name: fields[name] for name in told} == told
    assert (await v2.query(number))["total_fee"] == "2"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"amount": "0.025"}, "AMOUNT_INVALID"),
        ({"amount": "NaN"}, "AMOUNT_INVALID"),
        ({"fields": {"a b": "1"}}, "FIELD_INVALID"),
        ({"fields": {"a><b": "1"}}, "FIELD_INVALID"),
        ({"fields": {"attach": "\0"}}, "FIELD_INVALID"),
        ({"payer": "o\x1b"}, "FIELD_INVALID"),
    ],
)
async def test_what_no_notice_can_carry_is_refused(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer, options: dict[str, object], error: str
) -> None:
    number = await ordered(v2, merchant)
    answer = await sandbox.control("POST", f"/trades/{number}/pay", options, status=409)
    assert answer["error"]["code"] == error
    assert (await v2.query(number))["trade_state"] == "NOTPAY"
    assert merchant.received == []


async def test_a_notice_can_carry_a_wrong_signature(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    await sandbox.pay(await ordered(v2, merchant), break_signature=True)
    fields = from_xml(merchant.received[0].body)
    assert len(fields["sign"]) == 64
    assert fields["sign"] != signature(fields, v2.account["api_key"], v2.sign_type)


async def test_any_body_can_be_sent_to_the_orders_address(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    number = await ordered(v2, merchant)
    hostile = '<!DOCTYPE xml [<!ENTITY x SYSTEM "file:///etc/hostname">]><xml><a>&x;</a></xml>'
    merchant.otherwise = (400, b"")
    answer = await sandbox.control("POST", "/wechat/notices", {"out_trade_no": number, "body": hostile})
    assert [received.body for received in merchant.received] == [hostile.encode()]
    assert (answer["notification"]["state"], len(answer["notification"]["attempts"])) == ("GIVEN_UP", 1)
    assert (await v2.query(number))["trade_state"] == "NOTPAY"
    await sandbox.control("POST", "/wechat/notices", {"out_trade_no": "never-made", "body": "x"}, status=404)
