"""What an operator types for APIv2: accepted, normalised, or refused with the field and the fix."""

import base64
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx
import pytest

from app.clock import Clock
from app.providers.contract import AccountInvalid, PaymentMethod
from app.providers.gateways import GatewayRule
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v2.account import V2Account
from tests.providers.wechat.v2.merchant import (
    API_KEY,
    APP_ID,
    MCH_ID,
    SUB_APP_ID,
    SUB_MCH_ID,
    client_key,
    p12,
    partner_fields,
    v2_fields,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DIALECT = V2Dialect(httpx.AsyncClient(), Clock(), timeout_s=1.0, gateways=GatewayRule())
OTHERS = "wx00000000000000aa, wx00000000000000ab,wx00000000000000aa"


@cache
def container() -> str:
    return p12(begins=NOW - timedelta(days=1))


def seal(fields: dict[str, str], mode: str = "v2") -> tuple[dict[str, Any], dict[str, str]]:
    return DIALECT.seal(mode=mode, fields=fields, now=NOW)


def opened(fields: dict[str, str], mode: str = "v2") -> V2Account:
    settings, credentials = seal(fields, mode)
    return DIALECT.open(mode=mode, settings=settings, credentials=credentials)


def test_the_defaults_are_filled_in_and_the_keys_kept_apart() -> None:
    settings, credentials = seal({"mch_id": f" {MCH_ID}\n", "appid": APP_ID, "api_key": API_KEY, "sign_type": ""})
    assert settings == {
        "mch_id": MCH_ID,
        "appid": APP_ID,
        "sign_type": "HMAC-SHA256",
        "gateway": "https://api.mch.weixin.qq.com",
    }
    assert credentials == {"api_key": API_KEY}


@pytest.mark.parametrize("mode", ["v2", "v2_partner"])
def test_what_was_sealed_is_valid_input_and_seals_to_itself(mode: str) -> None:
    fields = partner_fields() if mode == "v2_partner" else v2_fields()
    fields |= {
        "sign_type": "md5",
        "mini_program_appid": OTHERS,
        "gateway": "http://127.0.0.1:9/",
        "client_certificate_p12": container()[:40] + "\n " + container()[40:],
    }
    settings, credentials = seal(fields, mode)
    assert settings["sign_type"] == "MD5"
    assert settings["mini_program_appid"] == "wx00000000000000aa,wx00000000000000ab"
    assert settings["gateway"] == "http://127.0.0.1:9"
    assert credentials["client_certificate_p12"] == container()
    assert not settings.keys() & credentials.keys()
    assert seal(settings | credentials, mode) == (settings, credentials)


def test_a_merchant_for_itself_offers_its_applications() -> None:
    plain = opened(v2_fields())
    assert plain.offers == dict.fromkeys(
        (
            PaymentMethod.WECHAT_MINI_PROGRAM,
            PaymentMethod.WECHAT_JSAPI,
            PaymentMethod.WECHAT_H5,
            PaymentMethod.WECHAT_NATIVE,
        ),
        (APP_ID,),
    )
    assert plain.expected_claims == {"mch_id": frozenset({MCH_ID}), "appid": frozenset({APP_ID})}
    assert plain.payer_name == "openid"
    listed = opened(v2_fields(mini_program_appid=OTHERS, official_account_appid="wx00000000000000ac"))
    assert listed.offers[PaymentMethod.WECHAT_MINI_PROGRAM] == ("wx00000000000000aa", "wx00000000000000ab")
    assert listed.offers[PaymentMethod.WECHAT_JSAPI] == ("wx00000000000000ac",)
    assert listed.offers[PaymentMethod.WECHAT_H5] == (APP_ID,)
    assert listed.expected_claims["appid"] == frozenset(
        {APP_ID, "wx00000000000000aa", "wx00000000000000ab", "wx00000000000000ac"}
    )


def test_a_partner_offers_its_merchants_application_where_there_is_one() -> None:
    own = opened(partner_fields(sub_appid=""), "v2_partner")
    assert own.offers[PaymentMethod.WECHAT_JSAPI] == (APP_ID,)
    assert (own.payer_name, own.sub_appid) == ("openid", None)
    assert own.expected_claims == {
        "mch_id": frozenset({MCH_ID}),
        "sub_mch_id": frozenset({SUB_MCH_ID}),
        "appid": frozenset({APP_ID}),
    }
    theirs = opened(partner_fields(mini_program_appid="wx00000000000000aa"), "v2_partner")
    assert theirs.offers[PaymentMethod.WECHAT_MINI_PROGRAM] == ("wx00000000000000aa",)
    assert theirs.offers[PaymentMethod.WECHAT_NATIVE] == (SUB_APP_ID,)
    assert theirs.payer_name == "sub_openid"
    assert theirs.expected_claims == {
        "mch_id": frozenset({MCH_ID}),
        "sub_mch_id": frozenset({SUB_MCH_ID}),
        "appid": frozenset({APP_ID}),
        "sub_appid": frozenset({SUB_APP_ID, "wx00000000000000aa"}),
    }


def test_the_certificate_stays_packed_until_it_is_asked_for() -> None:
    account = opened(v2_fields(client_certificate_p12=container()))
    assert account.client_certificate_p12 == base64.b64decode(container())
    pair = account.client_key_pair()
    assert pair is not None
    assert pair[0].private_numbers() == client_key().private_numbers()
    assert opened(v2_fields()).client_key_pair() is None


def test_no_secret_shows_when_an_account_is_printed() -> None:
    printed = repr(opened(v2_fields(client_certificate_p12=container())))
    assert API_KEY not in printed
    assert "client_certificate_p12" not in printed


def test_an_expired_certificate_does_not_stop_a_stored_account() -> None:
    settings, credentials = seal(v2_fields(client_certificate_p12=container()))
    later = V2Dialect(httpx.AsyncClient(), Clock(timedelta(days=3650)), timeout_s=1.0, gateways=GatewayRule())
    assert later.open(mode="v2", settings=settings, credentials=credentials).client_key_pair() is not None


@pytest.mark.parametrize(
    ("changes", "culprit", "message"),
    [
        ({"mch_id": ""}, "mch_id", "mch_id is missing: mode v2 needs it"),
        ({"appid": ""}, "appid", "appid is missing"),
        ({"api_key": ""}, "api_key", "api_key is missing"),
        ({"mch_id": "19000000０1"}, "mch_id", "not what WeChat issues"),
        ({"appid": "2021000000000000"}, "appid", "wx and 16 hexadecimal digits"),
        ({"api_key": API_KEY[:-1]}, "api_key", "the 32 letters and digits of the APIv2 key"),
        ({"api_key": API_KEY[:-1] + "&"}, "api_key", "the 32 letters and digits of the APIv2 key"),
        ({"sign_type": "RSA"}, "sign_type", "sign_type must be one of HMAC-SHA256, MD5"),
        ({"sub_mch_id": SUB_MCH_ID}, "sub_mch_id", "no field of a WeChat account of mode v2"),
        ({"sub_appid": SUB_APP_ID}, "sub_appid", "no field of a WeChat account of mode v2"),
        ({"apikey": API_KEY}, "apikey", "no field of a WeChat account of mode v2"),
        ({"mini_program_appid": "wx00000000000000aa;wx1"}, "mini_program_appid", "wx and 16 hexadecimal digits"),
        (
            {"official_account_appid": ",".join(f"wx{n:016x}" for n in range(21))},
            "official_account_appid",
            "more than 20",
        ),
        ({"gateway": "http://api.mch.weixin.qq.com"}, "gateway", "must begin with https://"),
        ({"gateway": "https://a@api.mch.weixin.qq.com"}, "gateway", "without user, query or fragment"),
        ({"client_certificate_p12": "%%%"}, "client_certificate_p12", "is not base64"),
        ({"client_certificate_p12": "QUJD"}, "client_certificate_p12", "does not open with mch_id as its password"),
    ],
    ids=str,
)
def test_a_mistake_is_named_by_its_field(changes: dict[str, str], culprit: str, message: str) -> None:
    with pytest.raises(AccountInvalid) as invalid:
        seal(v2_fields(**changes))
    assert invalid.value.field == culprit
    assert message in str(invalid.value)
    assert API_KEY not in str(invalid.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"password": "1900000002"}, "does not open with mch_id as its password"),
        ({"owner": "1900000002"}, "was issued to 1900000002, not to mch_id"),
        ({"life": timedelta(hours=1)}, "expired on 2026-11-21"),
    ],
    ids=str,
)
def test_a_certificate_that_cannot_work_is_refused(made: dict[str, Any], message: str) -> None:
    with pytest.raises(AccountInvalid, match=message) as invalid:
        seal(v2_fields(client_certificate_p12=p12(begins=NOW - timedelta(days=1), **made)))
    assert invalid.value.field == "client_certificate_p12"


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [({"sub_mch_id": ""}, "sub_mch_id"), ({"sub_mch_id": MCH_ID}, "sub_mch_id"), ({"sub_appid": "wx1"}, "sub_appid")],
)
def test_a_partner_names_its_merchant(changes: dict[str, str], culprit: str) -> None:
    with pytest.raises(AccountInvalid) as invalid:
        seal(partner_fields(**changes), "v2_partner")
    assert invalid.value.field == culprit


def test_the_deployments_sandbox_may_do_without_tls() -> None:
    dialect = V2Dialect(
        httpx.AsyncClient(), Clock(), timeout_s=1.0, gateways=GatewayRule("http://sandbox.internal:8001")
    )
    fields = v2_fields(gateway="http://sandbox.internal:8001")
    assert dialect.seal(mode="v2", fields=fields, now=NOW)[0]["gateway"] == "http://sandbox.internal:8001"
    with pytest.raises(AccountInvalid):
        dialect.seal(mode="v2", fields=v2_fields(gateway="http://sandbox.internal:8002"), now=NOW)
