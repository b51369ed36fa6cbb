"""Merchant accounts, from what an operator types to what an adapter signs with.

A stored account is public settings plus sealed credentials. Opening one costs milliseconds (keys are parsed), so that
opened accounts are kept per version; a change of the row is announced to every process and drops the old one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.auth import Principal
from app.clock import Clock
from app.db import Database
from app.errors import Forbidden, InvalidInput, NotFound
from app.providers.contract import Account, AccountInvalid, Provider
from app.vault import Vault, split_key_id

# Public settings and credentials, as `Provider.seal_input` splits them.
_Stored = tuple[Mapping[str, Any], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class MerchantAccountSummary:
    """A merchant account as an operator may see it. Holds no secret."""

    id: int
    provider: str
    mode: str
    name: str
    settings: Mapping[str, Any]
    offers: Mapping[str, Sequence[str]]
    enabled: bool
    created_at: datetime
    updated_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """A merchant account ready for use."""

    id: int
    version: int
    provider: Provider
    account: Account


class MerchantAccounts:
    """All merchant accounts of this deployment. One a process."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, providers: Mapping[str, Provider]) -> None:
        self._db = database
        self._vault = vault
        self._clock = clock
        self.providers = providers
        self._opened: dict[int, OpenAccount] = {}

    async def open(self, account_id: int, *, version: int | None = None) -> OpenAccount:
        """The account, opened; of `version` or newer. Raises NotFound, VaultError, AccountInvalid."""
        kept = self._opened.get(account_id)
        if kept is not None and (version is None or kept.version >= version):
            return kept
        row = await self._db.one("merchant_account.find", account_id)
        if row is None or row["provider"] not in self.providers:
            raise NotFound(f"merchant account {account_id} does not exist")
        kept = self._opened.get(account_id)
        if kept is not None and kept.version >= row["version"]:
            return kept  # others asked for it at the same time, and one of them has opened it
        provider = self.providers[row["provider"]]
        credentials = self._vault.open(row["sealed"], row=_row_name(account_id))
        account = provider.open_account(mode=row["mode"], settings=row["settings"], credentials=credentials)
        opened = OpenAccount(id=account_id, version=row["version"], provider=provider, account=account)
        self._opened[account_id] = opened
        return opened

    async def is_current(self, account: OpenAccount) -> bool:
        """Whether the database still holds the version that was opened."""
        row = await self._db.one("merchant_account.version", account.id)
        return row is not None and row["version"] == account.version

    def forget(self, account_ids: Sequence[int]) -> None:
        """Drops opened accounts that changed; all of them when none is named."""
        for account_id in account_ids or list(self._opened):
            self._opened.pop(account_id, None)

    async def create(
        self,
        caller: Principal,
        *,
        provider: str,
        mode: str,
        name: str,
        fields: Mapping[str, str],
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> MerchantAccountSummary:
        """Adds an account after testing that its keys belong together.

        `fields` are the provider's own names, keys as PEM or bare base64. Raises Forbidden, InvalidInput."""
        _require_admin(caller)
        if provider not in self.providers:
            raise InvalidInput(
                f"provider {provider!r} is not one of {', '.join(sorted(self.providers))}", field="provider"
            )
        if not 1 <= len(name.strip()) <= 100:
            raise InvalidInput("name: give the account a name of 1 to 100 characters", field="name")
        adapter = self.providers[provider]
        if mode not in adapter.modes:
            raise InvalidInput(f"mode {mode!r} is not one of {', '.join(adapter.modes)}", field="mode")
        settings, credentials, offers = _tested(adapter, mode, fields)
        now = self._clock.now()
        async with self._db.transaction() as tx:
            next_id = await tx.one("merchant_account.next_id")
            assert next_id is not None
            account_id = next_id["id"]
            subject = _row_name(account_id)
            sealed = self._vault.seal(credentials, row=subject)
            row = await tx.one(
                "merchant_account.insert", account_id, provider, mode, name.strip(), settings, sealed, now, offers
            )
            assert row is not None
            details = {"provider": provider, "mode": mode}
            await tx.one("audit.append", now, caller.sub, "account.create", subject, details, address, correlation_id)
        return MerchantAccountSummary(**row)

    async def change(
        self,
        caller: Principal,
        account_id: int,
        *,
        fields: Mapping[str, str],
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> MerchantAccountSummary:
        """Gives an account other keys or settings; what `fields` does not name stays, and an empty text takes it away.

        Every process uses the new ones with its next call; notifications that only the old ones verify are refused, and
        repeated by the provider. An account that received money, or may yet, stays the same merchant's. Tested as in
        `create`. Raises Forbidden, NotFound, InvalidInput, VaultError."""
        _require_admin(caller)
        now, subject = self._clock.now(), _row_name(account_id)
        async with self._db.transaction() as tx:
            kept = await tx.one("merchant_account.lock", account_id)
            if kept is None or kept["provider"] not in self.providers:
                raise NotFound(f"merchant account {account_id} does not exist")
            provider, mode = self.providers[kept["provider"]], kept["mode"]
            before = kept["settings"], self._vault.open(kept["sealed"], row=subject)
            wanted = {name: str(text) for name, text in {**before[0], **before[1], **fields}.items() if text}
            settings, credentials, offers = _tested(provider, mode, wanted)
            if _receivers_differ(provider, mode, before, (settings, credentials)):
                held = await tx.one("merchant_account.holds_payments", account_id)
                assert held is not None
                if held["holds"]:
                    raise _other_merchant()
            sealed = self._vault.seal(credentials, row=subject)
            row = await tx.one("merchant_account.change", account_id, settings, sealed, offers, now)
            assert row is not None
            details = {"fields": sorted(fields)}
            await tx.one("audit.append", now, caller.sub, "account.change", subject, details, address, correlation_id)
        return MerchantAccountSummary(**row)

    async def list(self, caller: Principal) -> list[MerchantAccountSummary]:
        """All accounts, without secrets. Raises Forbidden."""
        _require_admin(caller)
        return [MerchantAccountSummary(**row) for row in await self._db.all("merchant_account.list")]

    async def set_enabled(
        self,
        caller: Principal,
        account_id: int,
        *,
        enabled: bool,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> MerchantAccountSummary:
        """Takes an account in or out of use for new payments; what is under way goes on. Raises Forbidden, NotFound."""
        _require_admin(caller)
        now = self._clock.now()
        async with self._db.transaction() as tx:
            row = await tx.one("merchant_account.set_enabled", account_id, enabled, now)
            if row is None:
                raise NotFound(f"merchant account {account_id} does not exist")
            action = "account.enable" if enabled else "account.disable"
            await tx.one("audit.append", now, caller.sub, action, _row_name(account_id), {}, address, correlation_id)
        return MerchantAccountSummary(**row)

    async def reseal(self, caller: Principal) -> tuple[int, int]:
        """Seals every account with the first master key; returns (re-sealed, already so). Raises Forbidden, VaultError.

        One transaction: either all are readable with the new key alone, or nothing changed."""
        _require_admin(caller)
        now, changed = self._clock.now(), 0
        async with self._db.transaction() as tx:
            rows = await tx.all("merchant_account.sealed_for_update")
            for row in rows:
                if split_key_id(row["sealed"])[0] == self._vault.sealing_key_id:
                    continue
                credentials = self._vault.open(row["sealed"], row=_row_name(row["id"]))
                sealed = self._vault.seal(credentials, row=_row_name(row["id"]))
                await tx.one("merchant_account.reseal", row["id"], sealed, now)
                changed += 1
            key = {"key": self._vault.sealing_key_id, "changed": changed}
            await tx.one("audit.append", now, caller.sub, "account.reseal", "merchant_account", key, None, None)
        return changed, len(rows) - changed


def _tested(
    adapter: Provider, mode: str, fields: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str], dict[str, list[str]]]:
    """(settings, credentials, offers) of what was typed in. Raises InvalidInput naming the field at fault."""
    try:
        settings, credentials = adapter.seal_input(mode=mode, fields=fields)
        account = adapter.open_account(mode=mode, settings=settings, credentials=credentials)
    except AccountInvalid as exc:
        raise InvalidInput(str(exc), field=exc.field, message_zh=f"商户配置有误（{exc.field}）") from exc
    return settings, credentials, {str(method): list(apps) for method, apps in account.offers.items()}


def _receivers_differ(provider: Provider, mode: str, before: _Stored, after: _Stored) -> bool:
    """Whether what the provider says to the one could not be to the other: it would not find the one's payments there.

    An account that cannot be opened any more is nobody's."""
    try:
        old, new = (
            provider.open_account(mode=mode, settings=settings, credentials=credentials).expected_claims
            for settings, credentials in (before, after)
        )
    except AccountInvalid:
        return False
    return any(claim in new and old[claim].isdisjoint(new[claim]) for claim in old)


def _other_merchant() -> InvalidInput:
    return InvalidInput(
        "fields: this account has payments, which the provider would not find under another merchant or application: "
        "add another account (createMerchantAccount) and disable this one",
        field="fields",
        message_zh="该商户账号已有支付记录，不能改为其他商户或应用，请新建商户账号并停用此账号",
    )


def _row_name(account_id: int) -> str:
    return f"merchant_account:{account_id}"


def _require_admin(caller: Principal) -> None:
    if not caller.is_admin:
        raise Forbidden("merchant accounts are managed by administrators: use a token with the admin role")
