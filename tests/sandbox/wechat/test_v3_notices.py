"""APIv3's notices: what they say, how they are signed, when they come again, and what in them may be untrue."""

import asyncio
import json
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.client import WechatClient, an_openid, order_number

GAPS_S = [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600]
FAILED = (500, b'{"code":"FAIL","message":"later"}')


async def ordered(wechat: WechatClient, merchant: MerchantServer, **fields: Any) -> str:
    number = order_number()
    await wechat.prepay(number, notify_url=merchant.notify_url, **fields)
    return number


async def test_a_notice_tells_the_truth_encrypted_and_signed(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant, attach="uid=7")
    (notice,) = await sandbox.pay(number)
    (received,) = merchant.received
    envelope = json.loads(received.body)
    resource = envelope.pop("resource")
    assert resource.keys() == {"original_type", "algorithm", "ciphertext", "associated_data", "nonce"}
    assert (resource["original_type"], len(resource["nonce"])) == ("transaction", 12)
    paid = await wechat.query(number)
    assert envelope == {
        "id": notice["notify_id"],
        "create_time": paid["success_time"],
        "resource_type": "encrypt-resource",
        "event_type": "TRANSACTION.SUCCESS",
        "summary": "支付成功",
    }
    assert wechat.read_notification(received.headers, received.body) == paid
    assert received.headers["content-type"] == "application/json"
    assert received.headers["wechatpay-serial"] == wechat.account["public_key_id"]
    assert (notice["state"], notice["summary"]) == (
        "ACKNOWLEDGED",
        {"channel": "v3", "amount": "0.02", "app_id": paid["appid"], "seller_id": paid["mchid"]},
    )


@pytest.mark.parametrize("answer", [(200, b""), (204, b""), (200, b'{"code":"SUCCESS"}'), (200, b"fail")])
async def test_the_status_alone_acknowledges(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer, answer: tuple[int, bytes]
) -> None:
    merchant.otherwise = answer
    (notice,) = await sandbox.pay(await ordered(wechat, merchant))
    assert notice["state"] == "ACKNOWLEDGED"


@pytest.mark.parametrize("answer", [(201, b""), (202, b""), (302, b""), (400, b"success"), (404, b""), FAILED, None])
async def test_anything_else_is_sent_again(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer, answer: tuple[int, bytes] | None
) -> None:
    merchant.answers = [answer]
    (notice,) = await sandbox.pay(await ordered(wechat, merchant))
    assert notice["state"] == "WAITING"
    await sandbox.advance(15)
    assert len(merchant.received) == 2
    (notice,) = await sandbox.notices()
    assert notice["state"] == "ACKNOWLEDGED"


async def test_the_retries_come_after_the_documented_gaps_and_then_stop(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    merchant.otherwise = FAILED
    number = await ordered(wechat, merchant)
    await sandbox.pay(number)
    await sandbox.advance(2 * 86400)
    (notice,) = await sandbox.notices()
    due = [datetime.fromisoformat(attempt["due_at"]) for attempt in notice["attempts"]]
    assert [(later - earlier).total_seconds() for earlier, later in pairwise(due)] == GAPS_S
    assert (sum(GAPS_S), notice["state"]) == (24 * 3600 + 4 * 60, "GIVEN_UP")
    stamps = [int(received.headers["wechatpay-timestamp"]) for received in merchant.received]
    assert [later - earlier for earlier, later in pairwise(stamps)] == pytest.approx(GAPS_S, abs=1)
    plaintexts = [wechat.read_notification(received.headers, received.body) for received in merchant.received]
    assert len({json.dumps(plaintext) for plaintext in plaintexts}) == 1
    assert len({json.loads(received.body)["id"] for received in merchant.received}) == 1


async def test_five_seconds_without_an_answer_are_a_failure(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    may_answer = merchant.hold()
    started = asyncio.get_running_loop().time()
    (notice,) = await sandbox.pay(number)
    assert 5 <= asyncio.get_running_loop().time() - started < 9
    may_answer.set()
    assert (notice["state"], notice["attempts"][0]["error"]) == ("WAITING", "TimeoutError")


@pytest.mark.parametrize(
    ("options", "path", "told"),
    [
        ({"amount": "0.03"}, ("amount", "total"), 3),
        ({"amount": "0.03"}, ("amount", "payer_total"), 3),
        ({"amount": "0.005"}, ("amount", "total"), "0.5"),
        ({"amount": "-1"}, ("amount", "total"), -100),
        ({"amount": "NaN"}, ("amount", "total"), "NaN"),
        ({"app_id": "wx9999999999999999"}, ("appid",), "wx9999999999999999"),
        ({"seller_id": "1900009999"}, ("mchid",), "1900009999"),
        ({"payer": an_openid(2)}, ("payer", "openid"), an_openid(2)),
        ({"fields": {"trade_state": "REFUND"}}, ("trade_state",), "REFUND"),
        ({"fields": {"amount.total": "7"}}, ("amount", "total"), 7),
        ({"fields": {"amount.total": "7.5"}}, ("amount", "total"), "7.5"),
        ({"fields": {"amount.currency": "USD"}}, ("amount", "currency"), "USD"),
        ({"fields": {"out_trade_no": "another-number"}}, ("out_trade_no",), "another-number"),
        ({"fields": {"new.inner": "x"}}, ("new", "inner"), "x"),
    ],
)
async def test_a_notice_may_tell_an_untruth_under_a_true_signature(
    sandbox: SandboxHandle,
    wechat: WechatClient,
    merchant: MerchantServer,
    options: dict[str, Any],
    path: tuple[str, ...],
    told: object,
) -> None:
    number = await ordered(wechat, merchant)
    await sandbox.pay(number, **options)
    (received,) = merchant.received
    value: Any = wechat.read_notification(received.headers, received.body)
    for name in path:
        value = value[name]
    assert value == told
    truth = await wechat.query(number)
    assert (truth["trade_state"], truth["amount"]["total"], truth["out_trade_no"]) == ("SUCCESS", 2, number)


async def test_the_envelope_may_be_untrue_too(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    fields = {"envelope.event_type": "REFUND.SUCCESS", "envelope.resource.algorithm": "AES-128"}
    await sandbox.pay(number, fields=fields)
    envelope = json.loads(merchant.received[0].body)
    assert (envelope["event_type"], envelope["resource"]["algorithm"]) == ("REFUND.SUCCESS", "AES-128")
    assert wechat.signed_by_wechat(merchant.received[0].headers, merchant.received[0].body)


async def test_a_partners_notice_names_the_sub_merchant_and_may_name_others(
    sandbox: SandboxHandle, partner_wechat: WechatClient, merchant: MerchantServer
) -> None:
    partner = partner_wechat
    number = await ordered(partner, merchant)
    await sandbox.pay(number, seller_id="1900009999", app_id="wx9999999999999999", payer=an_openid(2))
    told = partner.read_notification(merchant.received[0].headers, merchant.received[0].body)
    assert (told["sp_appid"], told["sp_mchid"]) == ("wx9999999999999999", partner.account["mchid"])
    assert (told["sub_mchid"], told["payer"]) == ("1900009999", {"sp_openid": an_openid(2)})


async def test_copies_share_an_id_unless_told_otherwise(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    await sandbox.pay(await ordered(wechat, merchant), times=3)
    assert len({json.loads(received.body)["id"] for received in merchant.received}) == 1
    await sandbox.pay(await ordered(wechat, merchant), times=3, distinct_ids=True)
    assert len(merchant.received) == 6
    assert len({json.loads(received.body)["id"] for received in merchant.received[3:]}) == 3


async def test_a_broken_signature_is_well_formed_and_wrong(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    merchant.otherwise = (401, b"")
    await sandbox.pay(await ordered(wechat, merchant), break_signature=True)
    (received,) = merchant.received
    assert not wechat.signed_by_wechat(received.headers, received.body)
    assert received.headers["wechatpay-serial"] in wechat.keys


async def test_nothing_is_sent_when_nothing_is_asked(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    assert await sandbox.pay(number, notify=False) == []
    other = await ordered(wechat, merchant)
    answer = await sandbox.control("POST", f"/trades/{other}/close", {"notify": True})
    assert (answer["notifications"], answer["trade"]["status"], merchant.received) == ([], "CLOSED", [])


async def test_a_notice_can_be_sent_again_with_another_time_in_it(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    (notice,) = await sandbox.pay(await ordered(wechat, merchant))
    path = f"/notifications/{notice['notify_id']}/resend"
    for skew_s in (0, -600, 600):
        await sandbox.control("POST", path, {"skew_s": skew_s} if skew_s else {})
    first, *others = [int(received.headers["wechatpay-timestamp"]) for received in merchant.received]
    assert [stamp - first for stamp in others] == pytest.approx([0, -600, 600], abs=3)
    assert all(wechat.signed_by_wechat(received.headers, received.body) for received in merchant.received)


async def test_wechats_own_clock_may_be_wrong(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    await sandbox.control("POST", "/wechat/skew", {"seconds": 600})
    (notice,) = await sandbox.pay(number)
    sent_at = datetime.fromisoformat(notice["attempts"][0]["sent_at"])
    stamped = int(merchant.received[0].headers["wechatpay-timestamp"])
    assert abs(stamped - (sent_at + timedelta(seconds=600)).timestamp()) < 2
    assert await wechat.query_refused(number) == (401, "SIGN_ERROR", "timestamp")
    await sandbox.control("POST", "/wechat/skew", {"seconds": 0})
    assert (await wechat.query(number))["trade_state"] == "SUCCESS"


async def test_a_merchant_who_did_not_move_is_notified_by_the_machines_clock(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    await sandbox.advance(3600)
    number = await ordered(wechat, merchant)
    (notice,) = await sandbox.pay(number)
    sent_at = datetime.fromisoformat(notice["attempts"][0]["sent_at"])
    stamped = int(merchant.received[0].headers["wechatpay-timestamp"])
    assert abs(sent_at.timestamp() - stamped - 3600) < 3
