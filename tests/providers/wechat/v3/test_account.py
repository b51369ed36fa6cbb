"""What may be entered as an APIv3 account, what is kept of it, and which mistake is named by which field."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.clock import Clock
from app.providers.contract import AccountInvalid, PaymentMethod
from app.providers.gateways import GatewayRule
from app.providers.wechat.v3 import V3Dialect
from app.providers.wechat.v3.account import MODES, PRODUCTION_GATEWAY, V3Account
from tests.providers.wechat.v3.bench import UNUSED, sealed
from tests.providers.wechat.v3.keyring import (
    APIV3_KEY,
    APP_ID,
    FIELDS_OF_MODE,
    MCHID,
    MINI_APP_ID,
    NOW,
    PUBLIC_KEY_ID,
    SUB_APP_ID,
    SUB_MCHID,
    certificate,
    key,
    merchant_certificate,
    pem,
    private_text,
    public_text,
    serial,
)


def _dialect(sandbox_url: str | None = None) -> V3Dialect:
    return V3Dialect(UNUSED, Clock(), timeout_s=1.0, gateways=GatewayRule(sandbox_url=sandbox_url))


def _seal(mode: str = "v3", **changes: str) -> tuple[dict[str, Any], dict[str, str]]:
    return _dialect().seal(mode=mode, fields=FIELDS_OF_MODE[mode]() | changes, now=NOW)


def _open(mode: str = "v3", **changes: str) -> V3Account:
    settings, credentials = sealed(mode, **changes)
    return _dialect().open(mode=mode, settings=settings, credentials=credentials)


def _fault(mode: str = "v3", **changes: str) -> tuple[str, str]:
    with pytest.raises(AccountInvalid) as invalid:
        _seal(mode, **changes)
    return invalid.value.field, str(invalid.value)


def _bare(text: str) -> str:
    return "".join(text.splitlines()[1:-1])


@pytest.mark.parametrize("mode", MODES)
def test_what_was_sealed_is_valid_input_again(mode: str) -> None:
    settings, credentials = sealed(mode, mini_program_appid=f" {MINI_APP_ID} , {APP_ID},{MINI_APP_ID}")
    again = _dialect().seal(mode=mode, fields=settings | credentials, now=NOW)
    assert again == (settings, credentials)
    assert settings["mini_program_appid"] == f"{MINI_APP_ID},{APP_ID}"


def test_only_keys_are_credentials() -> None:
    settings, credentials = sealed("v3", merchant_certificate=pem(merchant_certificate()))
    assert settings == {
        "mchid": MCHID,
        "appid": APP_ID,
        "serial_no": f"{merchant_certificate().serial_number:X}",
        "public_key_id": PUBLIC_KEY_ID,
        "gateway": PRODUCTION_GATEWAY,
    }
    assert credentials == {
        "private_key": private_text("merchant"),
        "apiv3_key": APIV3_KEY,
        "public_key": public_text("wechat"),
    }


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("public_form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_keys_may_come_in_any_form(form: PrivateFormat, public_form: PublicFormat) -> None:
    private, public = private_text("merchant", form), public_text("wechat", public_form)
    for typed in (
        {"private_key": private, "public_key": public},
        {"private_key": _bare(private), "public_key": _bare(public)},
        {"private_key": f"\ufeff{private}\r\n", "public_key": public.replace("\n", "\r\n")},
        {"private_key": private.replace("\n", "\\n"), "public_key": public.replace("\n", "\\n")},
    ):
        assert _seal(**typed) == sealed("v3")


def test_a_serial_may_be_typed_with_colons_and_in_small_letters() -> None:
    typed = f"{merchant_certificate().serial_number:x}"
    with_colons = ":".join(typed[at : at + 2] for at in range(0, len(typed), 2))
    for text in (typed, with_colons):
        assert _seal(serial_no=text)[0]["serial_no"] == typed.upper()


@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_pay_is_offered_under_its_application(mode: str) -> None:
    usual = (SUB_APP_ID,) if mode == "v3_partner" else (APP_ID,)
    assert _open(mode).offers == {
        PaymentMethod.WECHAT_MINI_PROGRAM: usual,
        PaymentMethod.WECHAT_JSAPI: usual,
        PaymentMethod.WECHAT_H5: usual,
        PaymentMethod.WECHAT_NATIVE: usual,
    }
    lists = {"mini_program_appid": f"{MINI_APP_ID},wx000000000000000a", "official_account_appid": "wx000000000000000b"}
    account = _open(mode, **lists)
    assert account.offers == {
        PaymentMethod.WECHAT_MINI_PROGRAM: (MINI_APP_ID, "wx000000000000000a"),
        PaymentMethod.WECHAT_JSAPI: ("wx000000000000000b",),
        PaymentMethod.WECHAT_H5: usual,
        PaymentMethod.WECHAT_NATIVE: usual,
    }
    everything = frozenset({MINI_APP_ID, "wx000000000000000a", "wx000000000000000b", *usual})
    if mode == "v3_partner":
        assert account.expected_claims == {
            "sp_appid": frozenset({APP_ID}),
            "sp_mchid": frozenset({MCHID}),
            "sub_appid": everything,
            "sub_mchid": frozenset({SUB_MCHID}),
        }
    else:
        assert account.expected_claims == {"appid": everything, "mchid": frozenset({MCHID})}


def test_without_a_sub_appid_the_lists_are_the_service_providers() -> None:
    account = _open("v3_partner", sub_appid="", mini_program_appid=MINI_APP_ID)
    assert account.offers[PaymentMethod.WECHAT_MINI_PROGRAM] == (MINI_APP_ID,)
    assert account.offers[PaymentMethod.WECHAT_NATIVE] == (APP_ID,)
    assert account.expected_claims == {
        "sp_appid": frozenset({APP_ID, MINI_APP_ID}),
        "sp_mchid": frozenset({MCHID}),
        "sub_mchid": frozenset({SUB_MCHID}),
    }


@pytest.mark.parametrize("mode", MODES)
def test_every_required_field_is_named_when_it_is_missing(mode: str) -> None:
    required = {"mchid", "appid", "serial_no", "private_key", "apiv3_key"}
    required |= {"v3": {"public_key", "public_key_id"}, "v3_certificate": set(), "v3_partner": {"sub_mchid"}}[mode]
    for name in required:
        for nothing in ("", "  \n"):
            field, message = _fault(mode, **{name: nothing})
            assert field == name
            assert "missing" in message


def test_the_public_key_and_its_id_come_together() -> None:
    for name, other in (("public_key", "public_key_id"), ("public_key_id", "public_key")):
        given = {"public_key": public_text("wechat"), "public_key_id": PUBLIC_KEY_ID}
        field, message = _fault("v3_certificate", **{other: given[other]})
        assert (field, "come together" in message) == (name, True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["api_key", "mch_id", "appId", "apiv3_Key", "notify_url", "x"])
def test_an_unknown_field_is_named(mode: str, name: str) -> None:
    field, message = _fault(mode, **{name: "1"})
    assert field == name
    assert "apiv3_key" in message


@pytest.mark.parametrize("name", ["sub_mchid", "sub_appid"])
def test_a_partners_field_is_not_taken_elsewhere(name: str) -> None:
    for mode in ("v3", "v3_certificate"):
        field, message = _fault(mode, **{name: SUB_MCHID})
        assert (field, "v3_partner" in message) == (name, True)


@pytest.mark.parametrize(
    ("mode", "name", "text"),
    [
        ("v3", "mchid", "19000"), ("v3", "mchid", "19000000x1"), ("v3", "mchid", "１９００００００１"),
        ("v3", "appid", "wx123"), ("v3", "appid", "WX0000000000000001"), ("v3", "appid", "wx000000000000000g"),
        ("v3", "appid", f"{APP_ID},{MINI_APP_ID}"), ("v3", "serial_no", "not hexadecimal"), ("v3", "serial_no", "12"),
        ("v3", "serial_no", PUBLIC_KEY_ID), ("v3", "apiv3_key", APIV3_KEY[:-1]), ("v3", "apiv3_key", APIV3_KEY + "1"),
        ("v3", "apiv3_key", "密" * 32), ("v3", "public_key_id", "0119000000012026112200000001"),
        ("v3", "public_key_id", "PUB_KEY_ID_"), ("v3", "public_key_id", "pub_key_id_01"),
        ("v3", "mini_program_appid", f"{MINI_APP_ID};{APP_ID}"), ("v3", "official_account_appid", f"{APP_ID},"),
        ("v3", "mini_program_appid", ",".join(f"wx{number:016x}" for number in range(21))),
        ("v3_partner", "sub_mchid", "x"), ("v3_partner", "sub_mchid", MCHID), ("v3_partner", "sub_appid", "gh_1"),
        ("v3", "gateway", "http://pay.example.com"), ("v3", "gateway", "https://pay.example.com/v3"),
        ("v3", "gateway", "https://u:p@pay.example.com"), ("v3", "gateway", "ftp://pay.example.com"),
        ("v3", "gateway", "https://pay.example.com?x=1"),
    ],
)  # fmt: skip
def test_a_field_in_a_wrong_form_is_named(mode: str, name: str, text: str) -> None:
    assert _fault(mode, **{name: text})[0] == name


def test_the_gateway_is_kept_without_its_last_slash() -> None:
    assert _seal(gateway="https://api2.mch.weixin.qq.com/")[0]["gateway"] == "https://api2.mch.weixin.qq.com"
    assert _seal(gateway="http://127.0.0.1:8001")[0]["gateway"] == "http://127.0.0.1:8001"
    of_sandbox = _dialect("http://sandbox:8001")
    fields = FIELDS_OF_MODE["v3"]() | {"gateway": "http://sandbox:8001/"}
    assert of_sandbox.seal(mode="v3", fields=fields, now=NOW)[0]["gateway"] == "http://sandbox:8001"


def _short_key() -> str:
    return key("short", 1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _ec_key() -> str:
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _locked_key() -> str:
    locked = BestAvailableEncryption(b"x")
    return key("merchant").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("private_key", lambda: public_text("merchant"), "is a public key"),
        ("private_key", lambda: pem(merchant_certificate()), "is a certificate"),
        ("private_key", lambda: "AAAA", "no RSA private key"),
        ("private_key", lambda: "not base64!", "not base64"),
        ("private_key", lambda: "-----BEGIN PRIVATE KEY-----\nAAAA", "damaged"),
        ("private_key", lambda: private_text("merchant") * 2, "2 keys"),
        ("private_key", lambda: "A" * 70_000, "longer"),
        ("private_key", _short_key, "2048"),
        ("private_key", _ec_key, "not an RSA key"),
        ("private_key", _locked_key, "pass phrase"),
        ("public_key", lambda: private_text("wechat"), "is a private key"),
        ("public_key", lambda: pem(certificate("one")), "mode v3_certificate"),
        ("public_key", lambda: "AAAA", "no RSA public key"),
        ("public_key", lambda: public_text("merchant"), "the merchant's own key"),
        ("platform_certificates", lambda: pem(merchant_certificate()), "the merchant's own key"),
        ("platform_certificates", lambda: pem(certificate("one"), merchant_certificate()), "the merchant's own key"),
        ("platform_certificates", lambda: public_text("one"), "holds a key"),
        ("platform_certificates", lambda: "AAAA", "no certificate"),
        ("platform_certificates", lambda: pem(certificate("past", begins=NOW - timedelta(days=1826))), "expired on"),
        ("platform_certificates", lambda: pem(certificate("next", begins=NOW + timedelta(days=3))), "not valid before"),
        ("merchant_certificate", lambda: pem(certificate("merchant", owner="1900000002")), "merchant 1900000002"),
        ("merchant_certificate", lambda: "AAAA", "no certificate"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_and_explained(name: str, text: Any, said: str) -> None:
    field, message = _fault(**{name: text()})
    assert field == name
    assert said in message


def test_a_certificate_of_another_key_and_another_serial_are_told_apart() -> None:
    field, message = _fault(merchant_certificate=pem(certificate("stranger", owner=MCHID)))
    assert (field, "does not belong" in message) == ("private_key", True)
    field, message = _fault(merchant_certificate=pem(merchant_certificate()), serial_no=serial("one"))
    assert field == "serial_no"
    assert f"{merchant_certificate().serial_number:X}" in message


def test_an_expired_merchant_certificate_is_refused_when_entered() -> None:
    late = merchant_certificate().not_valid_after_utc
    fields = FIELDS_OF_MODE["v3"]() | {"merchant_certificate": pem(merchant_certificate())}
    with pytest.raises(AccountInvalid, match="expired on"):
        _dialect().seal(mode="v3", fields=fields, now=late)


def test_opening_does_not_judge_dates() -> None:
    settings, credentials = sealed("v3_certificate", platform_certificates=pem(certificate("one")))
    far = Clock(timedelta(days=4000))
    dialect = V3Dialect(UNUSED, far, timeout_s=1.0, gateways=GatewayRule())
    assert not dialect.open(mode="v3_certificate", settings=settings, credentials=credentials).platform_keys.has_any()


def test_opening_refuses_the_merchants_own_key() -> None:
    settings, credentials = sealed("v3")
    with pytest.raises(AccountInvalid, match="the merchant's own key"):
        _dialect().open(mode="v3", settings=settings, credentials=credentials | {"public_key": public_text("merchant")})


@pytest.mark.parametrize("mode", ["", "v2", "V3", "v3 "])
def test_another_mode_is_refused(mode: str) -> None:
    with pytest.raises(AccountInvalid) as invalid:
        _dialect().seal(mode=mode, fields=FIELDS_OF_MODE["v3"](), now=NOW)
    assert invalid.value.field == "mode"


def test_no_message_shows_what_was_typed() -> None:
    secret = APIV3_KEY + "x"
    assert secret not in _fault(apiv3_key=secret)[1]
    assert "BEGIN" not in _fault(private_key=private_text("merchant").replace("A", "*"))[1].replace("BEGIN or END", "")
