"""Who may call APIv3: what is refused about a caller, with its code, and that nothing happened then."""

import time
from collections.abc import Mapping

import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.client import SCHEME, WechatClient, order_number


async def refused_order(
    sandbox: SandboxHandle,
    wechat: WechatClient,
    *,
    changes: Mapping[str, str | None] | None = None,
    headers: Mapping[str, str | None] | None = None,
    authorization: str | None = None,
) -> tuple[int, str, str | None]:
    """The refusal of an order that is right in everything else, which must not exist afterwards."""
    number = order_number()
    response = await wechat.send(
        "POST",
        f"{wechat.base}/jsapi",
        wechat.order(number),
        changes=changes or {},
        headers=headers or {},
        authorization=authorization,
    )
    assert not await sandbox.has_trade(number)
    assert await sandbox.calls("wechat.v3.prepay", number) == 1
    assert response.headers["request-id"].split("-")[1].isdigit()
    assert "wechatpay-signature" not in response.headers
    answer = response.json()
    return response.status_code, answer["code"], answer.get("detail", {}).get("field")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mchid": None}, "mchid"),
        ({"nonce_str": None}, "nonce_str"),
        ({"timestamp": None}, "timestamp"),
        ({"serial_no": None}, "serial_no"),
        ({"signature": None}, "signature"),
        ({"mchid": "1900009999"}, "mchid"),
        ({"mchid": "1900000103"}, "mchid"),
        ({"serial_no": "5A00000000000000000000000000000000000000"}, "serial_no"),
        ({"nonce_str": "n" * 33}, "nonce_str"),
        ({"timestamp": "now"}, "timestamp"),
        ({"timestamp": "1754013600000"}, "timestamp"),
        ({"signature": "AAAA"}, "signature"),
        ({"signature": "not base64!"}, "signature"),
        ({"extra": "x"}, "Authorization"),
    ],
)
async def test_a_wrong_or_missing_parameter_is_a_sign_error(
    sandbox: SandboxHandle, wechat: WechatClient, changes: dict[str, str | None], field: str
) -> None:
    assert await refused_order(sandbox, wechat, changes=changes) == (401, "SIGN_ERROR", field)


@pytest.mark.parametrize("offset_s", [-310, 310, -600, 600, 28800])
async def test_a_clock_that_is_five_minutes_wrong_is_refused(
    sandbox: SandboxHandle, wechat: WechatClient, offset_s: int
) -> None:
    timestamp = str(int(time.time()) + offset_s)
    assert await refused_order(sandbox, wechat, changes={"timestamp": timestamp}) == (401, "SIGN_ERROR", "timestamp")


@pytest.mark.parametrize("offset_s", [-290, 290])
async def test_less_than_five_minutes_are_let_pass(sandbox: SandboxHandle, wechat: WechatClient, offset_s: int) -> None:
    number = order_number()
    changes = {"timestamp": str(int(time.time()) + offset_s)}
    await wechat.call("POST", f"{wechat.base}/jsapi", wechat.order(number), changes=changes)
    assert await sandbox.has_trade(number)


@pytest.mark.parametrize(
    "authorization",
    [
        'Bearer mchid="1900000001"',
        f"{SCHEME}",
        f"{SCHEME} mchid=1900000001",
        f'{SCHEME} mchid="1900000001",mchid="1900000001"',
        'WECHATPAY2-SM2-WITH-SM3 mchid="1900000001"',
    ],
)
async def test_a_malformed_authorization_is_a_sign_error(
    sandbox: SandboxHandle, wechat: WechatClient, authorization: str
) -> None:
    refused = await refused_order(sandbox, wechat, authorization=authorization)
    assert refused[:2] == (401, "SIGN_ERROR")


async def test_no_authorization_at_all_is_a_sign_error(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    refused = await refused_order(sandbox, wechat, headers={"authorization": None})
    assert refused == (401, "SIGN_ERROR", "Authorization")


async def test_the_parameters_may_come_in_any_order_with_spaces(wechat: WechatClient) -> None:
    target = wechat.query_target("none-at-all")
    scheme, _, pairs = wechat.authorization("GET", target, b"").partition(" ")
    turned = f"{scheme} {', '.join(reversed(pairs.split(',')))}"
    response = await wechat.send("GET", target, authorization=turned)
    assert response.json()["code"] == "ORDER_NOT_EXIST"


async def test_a_nonce_is_used_once(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    target = wechat.query_target("none-at-all")
    authorization = wechat.authorization("GET", target, b"")
    assert (await wechat.send("GET", target, authorization=authorization)).status_code == 404
    replayed = await wechat.send("GET", target, authorization=authorization)
    assert (replayed.status_code, replayed.json()["detail"]["field"]) == (401, "nonce_str")


async def test_a_refused_call_does_not_use_up_its_nonce(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    target = wechat.query_target("none-at-all")
    refused = await wechat.refused("GET", target, changes={"nonce_str": "once", "signature": "AAAA"})
    assert refused == (401, "SIGN_ERROR", "signature")
    assert await wechat.refused("GET", target, changes={"nonce_str": "once"}) == (404, "ORDER_NOT_EXIST", None)


async def test_the_signature_covers_method_path_query_and_body(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number, path = order_number(), f"{wechat.base}/jsapi"
    body = str(wechat.order(number)).replace("'", '"').encode()
    wrong = (401, "SIGN_ERROR", "signature")
    for method, target, signed_body in (
        ("GET", path, body),
        ("POST", f"{path}?a=b", body),
        ("POST", f"{wechat.base}/native", body),
        ("POST", f"{wechat.account['gateway']}{path}", body),
        ("POST", path, body + b" "),
        ("POST", path, b""),
    ):
        authorization = wechat.authorization(method, target, signed_body)
        assert await wechat.refused("POST", path, body, authorization=authorization) == wrong
    query = wechat.query_target(number)
    without_query = wechat.authorization("GET", query.partition("?")[0], b"")
    assert await wechat.refused("GET", query, authorization=without_query) == wrong
    assert not await sandbox.has_trade(number)


async def test_a_number_is_signed_as_it_stands_in_the_path(wechat: WechatClient) -> None:
    number = f"{order_number()[:24]}|*"
    await wechat.prepay(number)
    encoded = wechat.query_target(number)
    assert "%7C%2A" in encoded
    assert (await wechat.call("GET", encoded))["out_trade_no"] == number


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"accept": None}, "Accept"),
        ({"accept": "text/html"}, "Accept"),
        ({"content-type": None}, "Content-Type"),
        ({"content-type": "text/plain"}, "Content-Type"),
        ({"user-agent": None}, None),
        ({"wechatpay-serial": "PUB_KEY_ID_0000000000000000000000000000"}, "Wechatpay-Serial"),
    ],
)
async def test_a_missing_or_wrong_header_is_a_parameter_error(
    sandbox: SandboxHandle, wechat: WechatClient, headers: dict[str, str | None], field: str | None
) -> None:
    assert await refused_order(sandbox, wechat, headers=headers) == (400, "PARAM_ERROR", field)


async def test_after_the_clock_moved_the_machines_time_still_counts(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    await sandbox.advance(3600)
    response = await wechat.send("GET", wechat.query_target("none-at-all"))
    assert response.status_code == 404
    assert abs(int(response.headers["wechatpay-timestamp"]) - time.time()) < 5
    by_the_sandbox = {"timestamp": str(int(time.time()) + 3600)}
    response = await wechat.send("GET", wechat.query_target("none-at-all"), changes=by_the_sandbox)
    assert response.status_code == 404
    assert abs(int(response.headers["wechatpay-timestamp"]) - time.time() - 3600) < 5


async def test_strict_timestamps_play_a_caller_whose_clock_is_wrong(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    await sandbox.control("POST", "/clock", {"advance_s": 600, "strict_timestamps": True})
    assert await refused_order(sandbox, wechat) == (401, "SIGN_ERROR", "timestamp")


async def test_a_merchant_has_no_business_on_a_service_providers_paths(
    sandbox: SandboxHandle, wechat: WechatClient, partner_wechat: WechatClient
) -> None:
    number = order_number()
    target = "/v3/pay/partner/transactions/jsapi"
    assert await wechat.refused("POST", target, wechat.order(number)) == (403, "NO_AUTH", None)
    target = "/v3/pay/transactions/jsapi"
    assert await partner_wechat.refused("POST", target, partner_wechat.order(number)) == (403, "NO_AUTH", None)
    assert not await sandbox.has_trade(number)
