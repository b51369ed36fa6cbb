"""What `shouyin run` puts into its database: migrations, the demo table and its binding, the sandbox's accounts.

Each step looks at what is there first, so that every start may take them all.
"""

import hashlib
import json
from collections.abc import Sequence

from app.activation.binding import Binding
from app.auth import Principal
from app.db import migrate
from app.local.demo import create_demo_table
from app.runtime import Runtime
from app.wechat.apps import SaveWechatApp, WechatAppKind

_BINDING = Binding(
    order_table="public.orders",
    owner_column="user_id",
    amount_column="amount",
    status_column="status",
    paid_status="paid",
    failed_status="failed",
    refunded_status="refunded",
)
_PREFIX = "Sandbox "
_WECHAT_APP = "WECHAT_APP"


async def migrate_shop(database_url: str) -> list[str]:
    """Makes our tables and the demo shop's; says what it did. Raises DatabaseUnusable, LocalError."""
    applied = await migrate(database_url)
    await create_demo_table(database_url)
    return [f"applied {len(applied)} migrations"] if applied else []


async def open_shop(runtime: Runtime, operator: Principal, records: Sequence[dict[str, str]]) -> list[str]:
    """Binds the demo table and opens an account for each of the sandbox's; says what it did. Raises InvalidInput."""
    done: list[str] = []
    if not (await runtime.activation.feature()).active:
        await runtime.activation.activate(operator, _BINDING)
        done.append(f"bound {_BINDING.order_table}")
    known = {row.name: row for row in await runtime.accounts.list(operator)}
    wanted = {_name(record): record for record in records if record["provider"] in runtime.accounts.providers}
    for name, record in wanted.items():
        if name not in known:
            provider, mode = record["provider"], record["mode"]
            fields = {field: text for field, text in record.items() if field not in ("provider", "mode")}
            await runtime.accounts.create(operator, provider=provider, mode=mode, name=name, fields=fields)
            done.append(f"opened {provider} {mode}")
    for name, row in known.items():
        if name.startswith(_PREFIX) and row.enabled != (name in wanted):
            await runtime.accounts.set_enabled(operator, row.id, enabled=name in wanted)
    return done + await _open_wechat_apps(runtime, operator, records)


async def _open_wechat_apps(runtime: Runtime, operator: Principal, records: Sequence[dict[str, str]]) -> list[str]:
    """The sandbox's mini-program and official account; saved again when the sandbox has others under their ids."""
    done = []
    known = {row.app_id: row.name for row in await runtime.wechat.apps.list(operator)}
    for record in records:
        if record["provider"] != _WECHAT_APP or known.get(record["app_id"]) == _name(record):
            continue
        wanted = SaveWechatApp(
            app_id=record["app_id"],
            kind=WechatAppKind(record["mode"]),
            name=_name(record),
            secret=record["secret"],
            gateway=record["gateway"],
            authorize_gateway=record["authorize_gateway"],
        )
        await runtime.wechat.apps.save(operator, wanted)
        done.append(f"opened {_WECHAT_APP} {record['mode']}")
    return done


def _name(record: dict[str, str]) -> str:
    """Other keys or another port make another account; what was paid with the old one stays readable."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return f"{_PREFIX}{record['provider']} {record['mode']} {digest}"
