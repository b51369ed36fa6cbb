"""Which key WeChat signs with: certificates downloaded and rotated, the public key, both in turn, and the probe."""

import json

import pytest
from cryptography import x509

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.client import WechatClient, order_number, public_key


async def serial_of_an_answer(wechat: WechatClient, **headers: str) -> str:
    response = await wechat.send("GET", wechat.query_target("none-at-all"), headers=headers)
    assert wechat.signed_by_wechat(response.headers, response.content)
    return response.headers["wechatpay-serial"]


def keys_path(wechat: WechatClient) -> str:
    return f"/wechat/merchants/{wechat.account['mchid']}"


async def learn_public_key(sandbox: SandboxHandle, wechat: WechatClient) -> str:
    """What a merchant who migrates is given in the console."""
    shown = (await sandbox.control("GET", keys_path(wechat)))["merchant"]
    wechat.keys[shown["public_key_id"]] = public_key(shown["public_key"])
    key_id: str = shown["public_key_id"]
    return key_id


async def test_a_platform_certificate_is_downloaded_and_signs(
    sandbox: SandboxHandle, certificate_wechat: WechatClient
) -> None:
    wechat = certificate_wechat
    response = await wechat.send("GET", "/v3/certificates")
    (entry,) = response.json()["data"]
    assert entry.keys() == {"serial_no", "effective_time", "expire_time", "encrypt_certificate"}
    assert entry["effective_time"].endswith("+08:00")
    pem = wechat.decrypted(entry["encrypt_certificate"], associated_data="certificate")
    lifetime = x509.load_pem_x509_certificate(pem)
    assert (lifetime.not_valid_after_utc - lifetime.not_valid_before_utc).days == 5 * 365
    (serial,) = await wechat.download_certificates()
    assert (serial, len(serial), serial.upper()) == (entry["serial_no"], 40, serial)
    assert await serial_of_an_answer(wechat) == serial
    assert await sandbox.calls("wechat.v3.certificates", "") == 2


async def test_a_merchant_with_the_public_key_only_has_no_certificates(
    sandbox: SandboxHandle, wechat: WechatClient, partner_wechat: WechatClient
) -> None:
    for client in (wechat, partner_wechat):
        assert await client.refused("GET", "/v3/certificates") == (404, "RESOURCE_NOT_EXISTS", None)
        assert await serial_of_an_answer(client) == client.account["public_key_id"]
        for path, body in (("/certificates", {}), ("/signing", {"key": "certificate"})):
            refused = await sandbox.control("POST", f"{keys_path(client)}{path}", body, status=409)
            assert refused["error"]["code"] == "CERTIFICATE_NONE"


async def test_a_rotated_certificate_is_published_beside_the_old_and_signs_when_told(
    sandbox: SandboxHandle, certificate_wechat: WechatClient, merchant: MerchantServer
) -> None:
    wechat = certificate_wechat
    (old,) = await wechat.download_certificates()
    rotated = (await sandbox.control("POST", f"{keys_path(wechat)}/certificates", {}, status=201))["merchant"]
    assert (rotated["certificates"][0], rotated["signing_certificate"]) == (old, old)
    assert await serial_of_an_answer(wechat) == old
    both = await wechat.download_certificates()
    assert (both, len(set(both))) == (rotated["certificates"], 2)
    new = both[1]
    assert await serial_of_an_answer(wechat, **{"wechatpay-serial": new}) == new

    await sandbox.control("POST", f"{keys_path(wechat)}/signing", {"key": "certificate", "serial": new})
    assert await serial_of_an_answer(wechat) == new
    number = order_number()
    await wechat.prepay(number, notify_url=merchant.notify_url)
    await sandbox.pay(number)
    assert merchant.received[0].headers["wechatpay-serial"] == new

    in_use = await sandbox.control("DELETE", f"{keys_path(wechat)}/certificates/{new}", status=409)
    assert in_use["error"]["code"] == "CERTIFICATE_IN_USE"
    await sandbox.control("DELETE", f"{keys_path(wechat)}/certificates/{old}")
    assert await wechat.download_certificates() == [new]


async def test_a_migrating_merchant_gets_both_kinds_in_turn(
    sandbox: SandboxHandle, certificate_wechat: WechatClient, merchant: MerchantServer
) -> None:
    wechat = certificate_wechat
    (certificate,) = await wechat.download_certificates()
    key_id = await learn_public_key(sandbox, wechat)
    assert await serial_of_an_answer(wechat, **{"wechatpay-serial": key_id}) == key_id
    await sandbox.control("POST", f"{keys_path(wechat)}/signing", {"key": "alternating"})
    serials = [await serial_of_an_answer(wechat) for _ in range(4)]
    assert sorted(serials) == sorted([certificate, certificate, key_id, key_id])
    assert serials[0] != serials[1]
    await sandbox.control("POST", f"{keys_path(wechat)}/signing", {"key": "public_key"})
    number = order_number()
    await wechat.prepay(number, notify_url=merchant.notify_url)
    await sandbox.pay(number)
    assert merchant.received[0].headers["wechatpay-serial"] == key_id
    assert wechat.signed_by_wechat(merchant.received[0].headers, merchant.received[0].body)


async def test_a_reset_forgets_rotated_certificates(sandbox: SandboxHandle, certificate_wechat: WechatClient) -> None:
    before = await certificate_wechat.download_certificates()
    await sandbox.control("POST", f"{keys_path(certificate_wechat)}/certificates", {}, status=201)
    await sandbox.control("POST", "/reset")
    assert await certificate_wechat.download_certificates() == before


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("1900000001/signing", {"key": "password"}, 400, "OPTION_INVALID"),
        ("1900000001/signing", {}, 400, "OPTION_INVALID"),
        ("1900000002/signing", {"key": "certificate", "serial": "5A"}, 404, "CERTIFICATE_UNKNOWN"),
        ("1900000004/signing", {"key": "public_key"}, 404, "MERCHANT_UNKNOWN"),
        ("1900000002/certificates", {"sign": True}, 400, "OPTION_UNKNOWN"),
    ],
)
async def test_a_key_that_cannot_be_chosen_is_explained(
    sandbox: SandboxHandle, path: str, body: dict[str, object], status: int, code: str
) -> None:
    before = await sandbox.control("GET", "/wechat/merchants")
    refused = await sandbox.control("POST", f"/wechat/merchants/{path}", body, status=status)
    assert refused["error"]["code"] == code
    assert await sandbox.control("GET", "/wechat/merchants") == before


async def test_a_probe_is_true_in_all_but_its_signature_and_never_repeated(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = order_number()
    await wechat.prepay(number, notify_url=merchant.notify_url)
    unpaid = await sandbox.control("POST", f"/wechat/trades/{number}/probe", {}, status=409)
    assert (unpaid["error"]["code"], merchant.received) == ("TRADE_UNPAID", [])
    await sandbox.pay(number, notify=False)
    merchant.answers = [(401, b"")]
    answer = await sandbox.control("POST", f"/wechat/trades/{number}/probe", {"follow": True})
    probe, true = answer["notifications"]
    assert (probe["state"], true["state"], len(merchant.received)) == ("GIVEN_UP", "ACKNOWLEDGED", 2)
    first, second = merchant.received
    assert first.headers["wechatpay-signature"].startswith("WECHATPAY/SIGNTEST/")
    assert not wechat.signed_by_wechat(first.headers, first.body)
    resource = json.loads(first.body)["resource"]
    assert json.loads(wechat.decrypted(resource, associated_data="transaction"))["out_trade_no"] == number
    assert wechat.read_notification(second.headers, second.body)["out_trade_no"] == number
    await sandbox.advance(86400)
    assert len(merchant.received) == 2
