"""Merchant accounts on the API, for administrators. Credentials go in and never come out."""

from datetime import datetime
from typing import Final, Self

import strawberry
from strawberry.scalars import JSON

from app.api.context import ApiInfo
from app.api.scalars import read_id
from app.errors import InvalidInput
from app.merchants.accounts import MerchantAccountSummary

_FIELDS: Final = 40
_FIELD_CHARACTERS: Final = 20_000


@strawberry.type(description="Our credentials at a provider, without the secret ones.")
class MerchantAccount:
    id: strawberry.ID
    provider: str
    mode: str
    name: str
    settings: JSON = strawberry.field(description="The public settings, by the provider's own names.")
    offers: JSON = strawberry.field(
        description="Ways to pay it can be used for, each with the application ids it runs under, the default first."
    )
    enabled: bool
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, account: MerchantAccountSummary) -> Self:
        """The account as administrators see it."""
        return cls(
            id=strawberry.ID(str(account.id)),
            provider=account.provider,
            mode=account.mode,
            name=account.name,
            settings=JSON(account.settings),
            offers=JSON(account.offers),
            enabled=account.enabled,
            created_at=account.created_at,
            updated_at=account.updated_at,
            version=account.version,
        )


@strawberry.input
class CreateMerchantAccountInput:
    provider: str = strawberry.field(description="ALIPAY, WECHAT or HUIFU")
    mode: str
    name: str
    fields: JSON = strawberry.field(
        description=(
            "An object of texts by the provider's own names, such as app_id, app_private_key and alipay_public_key for "
            "Alipay; keys as PEM or bare base64. Send it as a variable: a document may be logged by a proxy."
        )
    )


@strawberry.type
class MerchantQuery:
    @strawberry.field(description="All merchant accounts. For administrators.")
    async def merchant_accounts(self, info: ApiInfo) -> list[MerchantAccount]:
        rows = await info.context.runtime.accounts.list(info.context.administrator())
        return [MerchantAccount.of(row) for row in rows]


@strawberry.type
class MerchantMutation:
    @strawberry.mutation(description="Adds an account after testing that its keys belong together. For administrators.")
    async def create_merchant_account(self, info: ApiInfo, input: CreateMerchantAccountInput) -> MerchantAccount:  # noqa: A002 — public
        context = info.context
        caller = context.administrator()
        account = await context.runtime.accounts.create(
            caller,
            provider=input.provider,
            mode=input.mode,
            name=input.name,
            fields=_read_fields(input.fields),
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return MerchantAccount.of(account)

    @strawberry.mutation(
        description=(
            "Gives an account other keys or settings, tested like a new one: `fields` as for createMerchantAccount. "
            "What it does not name stays; an empty text takes a field away. For administrators."
        )
    )
    async def update_merchant_account(self, info: ApiInfo, id: strawberry.ID, fields: JSON) -> MerchantAccount:  # noqa: A002 — public
        context = info.context
        account = await context.runtime.accounts.change(
            context.administrator(),
            read_id(id, "id"),
            fields=_read_fields(fields),
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return MerchantAccount.of(account)

    @strawberry.mutation(
        description="Takes an account in or out of use for new payments; what is under way goes on. For administrators."
    )
    async def set_merchant_account_enabled(self, info: ApiInfo, id: strawberry.ID, enabled: bool) -> MerchantAccount:  # noqa: A002 — public
        context = info.context
        caller = context.administrator()
        account = await context.runtime.accounts.set_enabled(
            caller,
            read_id(id, "id"),
            enabled=enabled,
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return MerchantAccount.of(account)


def _read_fields(fields: object) -> dict[str, str]:
    """Raises InvalidInput; its message never repeats a value, which may be a key."""
    if not isinstance(fields, dict) or not 0 < len(fields) <= _FIELDS:
        raise InvalidInput(f"fields: write an object of 1 to {_FIELDS} texts", field="fields")
    for name, value in fields.items():
        if not isinstance(value, str) or len(value) > _FIELD_CHARACTERS or len(name) > 100:
            wanted = f"a text of at most {_FIELD_CHARACTERS} characters"
            raise InvalidInput(f"fields.{name[:40]}: write {wanted}", field="fields")
    return fields
