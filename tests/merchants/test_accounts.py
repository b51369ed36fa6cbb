"""Merchant accounts: keys in every form, a self-test, and secrets that never come out."""

import asyncio
import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import Forbidden, InvalidInput, NotFound, ShouyinError
from app.vault import VaultError, split_key_id
from tests.fixtures.shop import ADMIN, BUYER, Shop, private_pem, public_pem

Keys = tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]


def bare(pem: str) -> str:
    return "".join(line for line in pem.splitlines() if "-----" not in line)


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
@pytest.mark.parametrize("headers", [True, False])
async def test_keys_are_taken_in_every_form(
    shop: Shop, rsa_keys: Keys, account_fields: dict[str, str], form: str, headers: bool
) -> None:
    pem = (
        rsa_keys[0]
        .private_bytes(
            serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), serialization.NoEncryption()
        )
        .decode()
    )
    fields = account_fields | {"app_private_key": pem if headers else bare(pem)}
    made = await shop.runtime.accounts.create(ADMIN, provider="ALIPAY", mode="public_key", name="A", fields=fields)
    opened = await shop.runtime.accounts.open(made.id)
    assert opened.account.expected_claims["app_id"] == {fields["app_id"]}


async def test_keys_that_do_not_belong_together_are_named(
    shop: Shop, rsa_keys: Keys, account_fields: dict[str, str]
) -> None:
    for field, value in (
        ("alipay_public_key", public_pem(rsa_keys[0])),  # the application's own key, the commonest mistake
        ("app_private_key", "not a key"),
        ("app_private_key", account_fields["alipay_public_key"]),
        ("app_id", ""),
    ):
        with pytest.raises(InvalidInput) as refused:
            await shop.runtime.accounts.create(
                ADMIN, provider="ALIPAY", mode="public_key", name="A", fields=account_fields | {field: value}
            )
        assert refused.value.field == field
        assert "BEGIN" not in refused.value.message
    assert await shop.count("merchant_account") == 1


async def test_a_field_that_is_not_one_is_named(shop: Shop, account_fields: dict[str, str]) -> None:
    for words in ({"provider": "PAYPAL"}, {"mode": "magic"}, {"name": " "}):
        with pytest.raises(InvalidInput) as refused:
            await shop.runtime.accounts.create(
                ADMIN, **{"provider": "ALIPAY", "mode": "public_key", "name": "A"} | words, fields=account_fields
            )
        assert refused.value.field == next(iter(words))


async def test_nothing_secret_is_stored_in_the_open_or_shown(shop: Shop, account_fields: dict[str, str]) -> None:
    stored = await shop.connection.fetchval("select row_to_json(a)::text from shouyin.merchant_account a")
    shown = repr(await shop.runtime.accounts.list(ADMIN)) + repr(await shop.runtime.accounts.open(1))
    audit = await shop.connection.fetchval("select json_agg(a)::text from shouyin.audit a")
    secret = bare(account_fields["app_private_key"])[40:120]
    for text in (stored, shown, audit, base64.b64encode(stored.encode()).decode()):
        assert secret not in text
    assert account_fields["app_id"] in stored


async def test_only_administrators_manage_accounts(shop: Shop, account_fields: dict[str, str]) -> None:
    with pytest.raises(Forbidden):
        await shop.runtime.accounts.create(BUYER, provider="ALIPAY", mode="public_key", name="A", fields=account_fields)
    with pytest.raises(Forbidden):
        await shop.runtime.accounts.list(BUYER)
    with pytest.raises(Forbidden):
        await shop.runtime.accounts.set_enabled(BUYER, 1, enabled=False)
    with pytest.raises(Forbidden):
        await shop.runtime.accounts.change(BUYER, 1, fields={"seller_id": ""})
    with pytest.raises(Forbidden):
        await shop.runtime.accounts.reseal(BUYER)
    assert await shop.count("merchant_account") == 1


async def test_keys_are_changed_and_used_at_once(shop: Shop, account_fields: dict[str, str]) -> None:
    other = private_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    before = await shop.runtime.accounts.open(1)
    changed = await shop.runtime.accounts.change(
        ADMIN, 1, fields={"app_private_key": other, "seller_id": ""}, correlation_id="c-1"
    )
    assert (changed.id, changed.version, "seller_id" in changed.settings) == (1, 2, False)
    assert changed.settings["app_id"] == account_fields["app_id"]
    after = await shop.runtime.accounts.open(1, version=changed.version)
    assert (after.version, "seller_id" in after.account.expected_claims) == (2, False)
    assert before.account is not after.account
    (row,) = await shop.connection.fetch("select * from shouyin.audit where action = 'account.change'")
    assert (row["subject"], row["correlation_id"]) == ("merchant_account:1", "c-1")
    assert row["details"] == '{"fields": ["app_private_key", "seller_id"]}'


@pytest.mark.parametrize(
    ("account_id", "fields", "kind", "field"),
    [
        (1, {"app_private_key": "no key"}, InvalidInput, "app_private_key"),
        (1, {"app_id": ""}, InvalidInput, "app_id"),
        (1, {"colour": "red"}, InvalidInput, "colour"),
        (99, {"seller_id": ""}, NotFound, None),
    ],
)
async def test_a_change_that_cannot_work_changes_nothing(
    shop: Shop, account_id: int, fields: dict[str, str], kind: type[ShouyinError], field: str | None
) -> None:
    before = await shop.connection.fetch("select * from shouyin.merchant_account")
    with pytest.raises(kind) as refused:
        await shop.runtime.accounts.change(ADMIN, account_id, fields=fields)
    assert refused.value.field == field
    assert await shop.connection.fetch("select * from shouyin.merchant_account") == before


async def test_master_keys_are_rotated_by_resealing(shop: Shop) -> None:
    old = shop.config.master_keys
    shop.config = replace(shop.config, master_keys={"next": bytes(reversed(range(32))), **old})
    both = await shop.open()
    assert await both.accounts.reseal(ADMIN) == (1, 0)
    assert await both.accounts.reseal(ADMIN) == (0, 1)
    sealed = await shop.connection.fetchval("select sealed from shouyin.merchant_account")
    assert split_key_id(sealed)[0] == "next"
    shop.config = replace(shop.config, master_keys={"next": shop.config.master_keys["next"]})
    assert (await (await shop.open()).accounts.open(1)).id == 1
    shop.config = replace(shop.config, master_keys=old)
    with pytest.raises(VaultError, match="'next', which is not in MASTER_KEYS"):
        await (await shop.open()).accounts.open(1)


async def test_resealing_stops_whole_when_a_key_is_missing(shop: Shop, account_fields: dict[str, str]) -> None:
    await shop.runtime.accounts.create(ADMIN, provider="ALIPAY", mode="public_key", name="B", fields=account_fields)
    await shop.connection.execute(
        "update shouyin.merchant_account set sealed = overlay(sealed placing 'x' from 5) where id = 2"
    )
    shop.config = replace(shop.config, master_keys={"next": bytes(32), **shop.config.master_keys})
    before = await shop.connection.fetch("select sealed from shouyin.merchant_account order by id")
    with pytest.raises(VaultError):
        await (await shop.open()).accounts.reseal(ADMIN)
    assert await shop.connection.fetch("select sealed from shouyin.merchant_account order by id") == before


async def test_a_disabled_account_takes_no_new_payments(shop: Shop) -> None:
    assert (await shop.runtime.activation.feature()).methods == ("ALIPAY_PAGE", "ALIPAY_WAP", "ALIPAY_QR")
    assert not (await shop.runtime.accounts.set_enabled(ADMIN, 1, enabled=False)).enabled
    assert (await shop.runtime.activation.feature()).methods == ()
    assert (await shop.runtime.accounts.open(1)).id == 1
    with pytest.raises(NotFound):
        await shop.runtime.accounts.set_enabled(ADMIN, 99, enabled=True)


async def test_an_account_is_opened_once_however_many_ask_at_once(shop: Shop) -> None:
    """Each opening parses keys, and WeChat's keys are fetched for each."""
    fresh = await shop.open()
    opened = await asyncio.gather(*(fresh.accounts.open(1) for _ in range(20)))
    assert len({id(account.account) for account in opened}) == 1
