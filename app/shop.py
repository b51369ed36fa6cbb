"""What `shouyin run` puts into its database: migrations, the demo table and its binding, the sandbox's accounts.

Each step looks at what is there first, so that every start may take them all.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence

import httpx

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
# A sandbox that starts beside us serves by then.
_LOOKS = 100
_LOOK_EVERY_S = 0.1


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
    done += await _open_wechat_apps(runtime, operator, records)
    await _name_gateways(runtime, operator)
    return done


async def _name_gateways(runtime: Runtime, operator: Principal) -> None:
    """What a merchant enters in Alipay's console as 应用网关: where the sandbox tells that a payer unsigned there.

    It forgets with each start, and starts beside us. Without it a payer's unsigning is found by the next question."""
    if runtime.config.sandbox_url is None:
        return
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        for account in await runtime.accounts.list(operator):
            if account.provider != "ALIPAY" or not account.enabled:
                continue
            url = f"{runtime.config.sandbox_url}/_control/alipay/apps/{account.settings['app_id']}"
            told = {"app_gateway": f"{runtime.config.public_url}/notify/alipay/{account.id}"}
            for _ in range(_LOOKS):
                try:
                    await http.post(url, json=told)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(_LOOK_EVERY_S)


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
