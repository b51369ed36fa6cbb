"""Entering an account: what is stored, and which mistake is named by which field."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from app.clock import Clock
from app.providers.alipay import AlipayProvider, keys
from app.providers.alipay.account import PRODUCTION_GATEWAY, AlipayAccount
from app.providers.contract import AccountInvalid, AgreementTerms, PaymentMethod
from app.providers.gateways import GatewayRule
from tests.providers.alipay.keyring import (
    APP_ID,
    FIELDS_OF_MODE,
    MERCHANT_APP_ID,
    SELLER_ID,
    authority,
    certificate,
    certificate_fields,
    intermediate,
    isv_fields,
    key,
    pem,
    private_text,
    public_key_fields,
    public_text,
)


@pytest.fixture
def provider(client: httpx.AsyncClient, clock: Clock) -> AlipayProvider:
    return AlipayProvider(client, clock, timeout_s=1.0)


def refusal(provider: AlipayProvider, mode: str, fields: dict[str, str]) -> AccountInvalid:
    with pytest.raises(AccountInvalid) as refused:
        provider.seal_input(mode=mode, fields=fields)
    return refused.value


@pytest.mark.parametrize("mode", ["public_key", "certificate", "isv"])
def test_a_correct_account_is_sealed_opened_and_sealed_alike_again(provider: AlipayProvider, mode: str) -> None:
    settings, credentials = provider.seal_input(mode=mode, fields=FIELDS_OF_MODE[mode]())
    account = provider.open_account(mode=mode, settings=settings, credentials=credentials)
    assert (account.app_id, account.mode, account.gateway) == (APP_ID, mode, PRODUCTION_GATEWAY)
    assert account.private_key.private_numbers() == key("app").private_numbers()
    assert account.alipay_key.public_numbers() == key("alipay").public_key().public_numbers()
    assert provider.seal_input(mode=mode, fields={**settings, **credentials}) == (settings, credentials)


def test_settings_hold_what_may_be_seen_and_credentials_the_rest(provider: AlipayProvider) -> None:
    settings, credentials = provider.seal_input(mode="isv", fields=isv_fields())
    assert settings == {
        "app_id": APP_ID,
        "seller_id": SELLER_ID,
        "auth_app_id": MERCHANT_APP_ID,
        "gateway": PRODUCTION_GATEWAY,
        "qr_product_code": "QR_CODE_OFFLINE",
        "cycle_product": "CYCLE_PAY_AUTH",
        "cycle_scenes": settings["cycle_scenes"],
        "cycle_largest_amount": "100.00",
        "cycle_shortest_interval_days": "7",
        "cycle_window_days": "3",
        "cycle_plan_changes": "10",
    }
    scenes = settings["cycle_scenes"].split(",")
    assert (len(scenes), len(set(scenes)), scenes[0], scenes[-1]) == (
        27, 27, "INDUSTRY|LOTTERY", "INDUSTRY|LIFE_PAYMENT",
    )  # fmt: skip
    assert credentials.keys() == {"app_private_key", "alipay_public_key", "app_auth_token"}


def test_claims_name_the_receiver_in_every_mode(provider: AlipayProvider) -> None:
    def claims(mode: str, fields: dict[str, str]) -> dict[str, str]:
        settings, credentials = provider.seal_input(mode=mode, fields=fields)
        expected = provider.open_account(mode=mode, settings=settings, credentials=credentials).expected_claims
        return {name: only for name, (only,) in expected.items()}

    nameless = {name: text for name, text in public_key_fields().items() if name != "seller_id"}
    assert claims("public_key", nameless) == {"app_id": APP_ID}
    assert claims("certificate", certificate_fields()) == {"app_id": APP_ID, "seller_id": SELLER_ID}
    isv = {"app_id": APP_ID, "seller_id": SELLER_ID, "auth_app_id": MERCHANT_APP_ID}
    assert claims("isv", isv_fields()) == isv


def _opened(provider: AlipayProvider, **settings: str) -> AlipayAccount:
    sealed, credentials = provider.seal_input(mode="public_key", fields=public_key_fields() | settings)
    assert provider.seal_input(mode="public_key", fields=sealed | credentials) == (sealed, credentials)
    return provider.open_account(mode="public_key", settings=sealed, credentials=credentials)


def _terms(provider: AlipayProvider, **settings: str) -> AgreementTerms:
    assert provider.agreements is not None
    return provider.agreements.terms(_opened(provider, **settings))


def test_agreements_are_offered_beside_the_ways_that_a_caller_may_choose(provider: AlipayProvider) -> None:
    assert PaymentMethod.ALIPAY_CYCLE not in provider.methods
    assert provider.agreements is not None
    assert provider.agreements.method is PaymentMethod.ALIPAY_CYCLE
    ways = {PaymentMethod.ALIPAY_PAGE: (), PaymentMethod.ALIPAY_WAP: (), PaymentMethod.ALIPAY_QR: ()}
    assert _opened(provider).offers == ways | {PaymentMethod.ALIPAY_CYCLE: ()}
    for word in ("none", "NONE"):
        assert _opened(provider, cycle_scenes=word).offers == ways
        assert _terms(provider, cycle_scenes=word).scenes == frozenset()


def test_the_terms_of_agreements_are_the_documented_ones_until_they_are_set(provider: AlipayProvider) -> None:
    terms = _terms(provider)
    assert {"INDUSTRY|DIGITAL_MEDIA", "INDUSTRY|EDU", "INDUSTRY|APP_STORE", "INDUSTRY|APPSTORE"} < terms.scenes
    assert (terms.largest_deduction_fen, terms.shortest_interval_days) == (10_000, 7)
    assert (terms.window_days, terms.plan_changes) == (3, 10)
    assert _terms(
        provider,
        cycle_scenes="INDUSTRY|EDU, DEFAULT|SHOP_7 ,INDUSTRY|EDU",
        cycle_largest_amount="2000",
        cycle_shortest_interval_days="30",
        cycle_window_days="5",
        cycle_plan_changes="Unlimited",
    ) == AgreementTerms(
        scenes=frozenset({"INDUSTRY|EDU", "DEFAULT|SHOP_7"}),
        largest_deduction_fen=200_000,
        shortest_interval_days=30,
        window_days=5,
        plan_changes=None,
    )


def test_an_account_stored_before_there_were_agreements_opens_with_the_documented_terms(
    provider: AlipayProvider,
) -> None:
    sealed, credentials = provider.seal_input(mode="public_key", fields=public_key_fields())
    older = {name: value for name, value in sealed.items() if not name.startswith("cycle_")}
    account = provider.open_account(mode="public_key", settings=older, credentials=credentials)
    assert (account.terms, account.cycle_product) == (_terms(provider), "CYCLE_PAY_AUTH")


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("cycle_product", "CYCLE_PAY_AUTH_P", "one of CYCLE_PAY_AUTH, GENERAL_WITHHOLDING"),
        ("cycle_scenes", "DIGITAL_MEDIA", "'DIGITAL_MEDIA' is no scene"),
        ("cycle_scenes", "INDUSTRY|EDU,", "'' is no scene"),
        ("cycle_scenes", "INDUSTRY|EDU,none", "'none' is no scene"),
        ("cycle_scenes", "INDUSTRY|教育", "is no scene"),
        ("cycle_scenes", "INDUSTRY|" + "A" * 60, "is no scene"),
        ("cycle_scenes", "DEFAULT|DEFAULT", "is no scene"),
        ("cycle_largest_amount", "100.001", "is not an amount in yuan"),
        ("cycle_largest_amount", "1e2", "is not an amount in yuan"),
        ("cycle_largest_amount", "-1", "is not an amount in yuan"),
        ("cycle_largest_amount", "0", "from 0.01 to"),
        ("cycle_largest_amount", "100000000", "from 0.01 to"),
        ("cycle_shortest_interval_days", "0", "at least 1"),
        ("cycle_shortest_interval_days", "7.5", "a number of days"),
        ("cycle_shortest_interval_days", "７", "a number of days"),
        ("cycle_shortest_interval_days", "+7", "a number of days"),
        ("cycle_window_days", "-1", "a number of days"),
        ("cycle_window_days", "7", "below cycle_shortest_interval_days"),
        ("cycle_plan_changes", "many", "a number of times, or unlimited"),
        ("cycle_plan_change", "1", "is no field of an"),
    ],
)
def test_terms_that_cannot_be_are_named(provider: AlipayProvider, field: str, text: str, words: str) -> None:
    refused = refusal(provider, "public_key", public_key_fields() | {field: text})
    assert refused.field == field
    assert words in str(refused)


def test_an_isv_may_use_certificates(provider: AlipayProvider) -> None:
    tokens = {name: isv_fields()[name] for name in ("app_auth_token", "auth_app_id")}
    settings, credentials = provider.seal_input(mode="isv", fields={**certificate_fields(), **tokens})
    common = provider.open_account(mode="isv", settings=settings, credentials=credentials).common_params
    assert common.keys() > {"app_cert_sn", "alipay_root_cert_sn", "app_auth_token"}


def test_serial_numbers_of_the_certificates_are_ready_for_use(provider: AlipayProvider) -> None:
    fields = certificate_fields()
    settings, credentials = provider.seal_input(mode="certificate", fields=fields)
    account = provider.open_account(mode="certificate", settings=settings, credentials=credentials)
    [app_cert] = keys.load_certificates(fields["app_cert"], field="f")
    assert account.common_params["app_cert_sn"] == keys.certificate_sn(app_cert)
    assert account.common_params["alipay_root_cert_sn"] == keys.root_sn([authority("root")])
    assert account.alipay_cert_sn == keys.certificate_sn(keys.load_certificates(fields["alipay_cert"], field="f")[0])


def test_all_that_a_sandbox_prints_is_taken_as_it_is(provider: AlipayProvider) -> None:
    printed = {
        **certificate_fields(),
        "app_private_key": private_text("app", PrivateFormat.TraditionalOpenSSL),
        "app_private_key_pkcs8": private_text("app"),
        "app_public_key": public_text("app"),
        "alipay_public_key": public_text("alipay"),
        "gateway": "http://127.0.0.1:8001/gateway.do",
    }
    _, credentials = provider.seal_input(mode="certificate", fields=printed)
    assert credentials.keys() == {"app_private_key", "app_cert", "alipay_cert", "alipay_root_cert"}


def test_an_opened_account_shows_no_secret(provider: AlipayProvider) -> None:
    settings, credentials = provider.seal_input(mode="isv", fields=isv_fields())
    shown = repr(provider.open_account(mode="isv", settings=settings, credentials=credentials))
    assert "202611BB0123456789abcdef" not in shown
    assert "private_key" not in shown


@pytest.mark.parametrize(
    ("mode", "changes", "field", "words"),
    [
        ("public_key", {"alipay_public_key": lambda: public_text("app")}, "alipay_public_key", "the application's own"),
        ("public_key", {"app_public_key": lambda: public_text("alipay")}, "app_public_key", "does not belong to app_p"),
        ("public_key", {"app_private_key_pkcs8": lambda: private_text("other")}, "app_private_key_pkcs8", "leave"),
        ("public_key", {"app_private_key": lambda: public_text("app")}, "app_private_key", "this is a public key"),
        ("public_key", {"alipay_public_key": lambda: private_text("app")}, "alipay_public_key", "a private key"),
        ("public_key", {"alipay_public_key": lambda: ""}, "alipay_public_key", "is missing: mode public_key needs it"),
        ("public_key", {"app_id": lambda: ""}, "app_id", "is missing"),
        ("public_key", {"app_id": lambda: "2021 0000"}, "app_id", "digits"),
        ("public_key", {"app_id": lambda: "２０２１０００１"}, "app_id", "digits"),
        ("public_key", {"seller_id": lambda: "shop@example.com"}, "seller_id", "16 digits of the PID"),
        ("public_key", {"seller": lambda: SELLER_ID}, "seller", "is no field of an"),
        ("public_key", {"app_auth_token": lambda: "202611BB12345"}, "app_auth_token", "use mode isv"),
        ("public_key", {"app_cert": lambda: pem(authority("root"))}, "mode", "use mode certificate"),
        ("public_key", {"qr_product_code": lambda: "OTHER"}, "qr_product_code", "must be one of QR_CODE_OFFLINE"),
        ("isv", {"app_auth_token": lambda: ""}, "app_auth_token", "is missing"),
        ("isv", {"auth_app_id": lambda: ""}, "auth_app_id", "is missing"),
        ("isv", {"app_auth_token": lambda: "two words here"}, "app_auth_token", "as Alipay returned it"),
        ("certificate", {"alipay_root_cert": lambda: ""}, "alipay_root_cert", "is missing"),
        ("certificate", {"app_private_key": lambda: private_text("other")}, "app_cert", "does not belong"),
        ("certificate", {"alipay_cert": lambda: certificate_fields()["app_cert"]}, "alipay_cert", "application's own"),
        ("certificate", {"alipay_root_cert": lambda: pem(authority("other root"))}, "alipay_cert", "is not signed by"),
        ("certificate", {"alipay_public_key": lambda: public_text("other")}, "alipay_public_key", "not the key of"),
        ("certificate", {"app_cert": lambda: public_text("app")}, "app_cert", "is a key: paste the certificate"),
        ("certificate", {"app_id": lambda: "2021000000000001"}, "app_cert", f"was issued to app {APP_ID}"),
        ("mini", {}, "mode", "no Alipay mode"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_named(
    provider: AlipayProvider, mode: str, changes: dict[str, Callable[[], str]], field: str, words: str
) -> None:
    fields = FIELDS_OF_MODE.get(mode, public_key_fields)() | {name: make() for name, make in changes.items()}
    refused = refusal(provider, mode, fields)
    assert refused.field == field
    assert words in str(refused)


def test_an_alipay_certificate_without_its_intermediate_is_refused(provider: AlipayProvider) -> None:
    fields = certificate_fields()
    [leaf, _] = keys.load_certificates(fields["alipay_cert"], field="f")
    assert refusal(provider, "certificate", {**fields, "alipay_cert": pem(leaf)}).field == "alipay_cert"


def test_an_expired_certificate_is_refused_when_entered_and_still_opens_when_stored(
    client: httpx.AsyncClient, clock: Clock
) -> None:
    entered_now = AlipayProvider(client, clock, timeout_s=1.0)
    settings, credentials = entered_now.seal_input(mode="certificate", fields=certificate_fields())
    clock.advance(timedelta(days=100))
    expired = refusal(entered_now, "certificate", certificate_fields() | credentials)
    assert expired.field == "app_cert"
    assert "expired on" in str(expired)
    assert entered_now.open_account(mode="certificate", settings=settings, credentials=credentials).app_id == APP_ID


def test_a_certificate_of_the_future_is_refused(provider: AlipayProvider) -> None:
    later = datetime.now(UTC) + timedelta(days=10)
    future = certificate(
        "Alipay", key("alipay").public_key(), issuer=intermediate(), issuer_key=key("intermediate"), now=later
    )
    refused = refusal(provider, "certificate", {**certificate_fields(), "alipay_cert": pem(future, intermediate())})
    assert refused.field == "alipay_cert"
    assert "is not valid before" in str(refused)


def test_a_stored_account_whose_verifying_key_is_our_own_is_never_opened(provider: AlipayProvider) -> None:
    settings, credentials = provider.seal_input(mode="public_key", fields=public_key_fields())
    with pytest.raises(AccountInvalid) as refused:
        provider.open_account(
            mode="public_key", settings=settings, credentials={**credentials, "alipay_public_key": public_text("app")}
        )
    assert refused.value.field == "alipay_public_key"


@pytest.mark.parametrize(
    "gateway",
    [
        "http://openapi.alipay.com/gateway.do",
        "http://10.0.0.1/gateway.do",
        "http://127.0.0.1.example.com/gateway.do",
        "http://localhost.example.com/gateway.do",
        "http://sandbox.example.com:8002/gateway.do",
        "ftp://127.0.0.1/gateway.do",
        "openapi.alipay.com/gateway.do",
        "https:///gateway.do",
        "https://user:word@openapi.alipay.com/gateway.do",
        "https://openapi.alipay.com/gateway.do?a=1",
        "https://openapi.alipay.com/gateway.do#a",
        "https://openapi.alipay.com:port/gateway.do",
        "https://[::1/gateway.do",
        "https://openapi.alipay.com/gate way.do",
        "https://支付宝.example.com/gateway.do",
    ],
)
def test_a_gateway_that_cannot_be_trusted_is_refused(client: httpx.AsyncClient, clock: Clock, gateway: str) -> None:
    rule = GatewayRule(sandbox_url="http://sandbox.example.com:8001")
    provider = AlipayProvider(client, clock, timeout_s=1.0, gateways=rule)
    assert refusal(provider, "public_key", {**public_key_fields(), "gateway": gateway}).field == "gateway"


@pytest.mark.parametrize(
    "gateway",
    [
        "https://openapi-sandbox.dl.alipaydev.com/gateway.do",
        "http://127.0.0.1:8001/gateway.do",
        "http://localhost:8001/gateway.do",
        "http://[::1]:8001/gateway.do",
        "http://sandbox.example.com:8001/gateway.do",
    ],
)
def test_a_gateway_with_tls_on_this_machine_or_in_the_own_sandbox_is_taken(
    client: httpx.AsyncClient, clock: Clock, gateway: str
) -> None:
    rule = GatewayRule(sandbox_url="http://sandbox.example.com:8001")
    provider = AlipayProvider(client, clock, timeout_s=1.0, gateways=rule)
    settings, _ = provider.seal_input(mode="public_key", fields={**public_key_fields(), "gateway": gateway})
    assert settings["gateway"] == gateway
