"""The README is true: its commands exist, its operations run, its snippets take a payment to its end."""

import asyncio
import re
import shlex
import sys
import types
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from app.auth import issue_token
from app.cli import commands
from app.clock import SHANGHAI
from app.main import create_app
from app.payments.model import Payment
from app.providers.contract import PaymentMethod
from app.runtime import Runtime
from tests.cycles.conftest import LATE, Club
from tests.fixtures.market import Market
from tests.fixtures.web import serving

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language, in order."""
    return [text for name, text in BLOCKS if name == language]


@dataclass
class Api:
    """The API of a market, as a client meets it."""

    market: Market
    url: str
    token: str

    async def run(self, document: str, **variables: Any) -> Any:
        """One operation; its data. Fails on any error."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(
                f"{self.url}/graphql",
                json={"query": document, "variables": variables},
                headers={"authorization": f"Bearer {self.token}"},
            )
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]

    async def payment(self, payment_id: str) -> Payment:
        """The row."""
        row = await self.market.shop.runtime.payments.by_ids([int(payment_id)])
        return row[int(payment_id)]


@pytest.fixture
async def api(market: Market) -> AsyncIterator[Api]:
    """The market's API on a real port, with user 7's token."""
    config = market.shop.config
    async with serving(create_app(config, clock=market.shop.clock)) as url:
        yield Api(market, url, issue_token(config, sub="7", roles=("user",), ttl=timedelta(days=2)))


def test_every_command_exists() -> None:
    runner = CliRunner()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    inline = re.findall(r"`((?:\.venv/bin/)?shouyin [^`]+|make [a-z]+)`", README)
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    assert len(lines) >= 5
    for line in [*lines, *inline]:
        words = shlex.split(line)
        if words[0] == "make":
            assert words[1] in targets, line
            continue
        assert Path(words[0]).name == "shouyin", line
        path = [word for word in words[1:] if re.fullmatch(r"[a-z]+", word)][:3]
        shown = runner.invoke(commands, [*path, "--help"])
        while shown.exit_code != 0 and len(path) > 1:  # its last word was an argument
            path.pop()
            shown = runner.invoke(commands, [*path, "--help"])
        assert shown.exit_code == 0, line
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.output, line


def test_every_link_and_picture_leads_somewhere() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_file_the_map_names_exists() -> None:
    [drawn] = blocks("")
    for name in re.findall(r"\b(?:app|sql|tests)/[a-z_/]*(?:\.py)?", drawn):
        assert (ROOT / name).exists(), name


def test_every_setting_it_names_is_read() -> None:
    known = (ROOT / "app" / "config.py").read_text() + (ROOT / "compose.yaml").read_text()
    for name in re.findall(r"`([A-Z]+_[A-Z_]+|PORT|FLOWS)`", README):
        codes = re.findall(r"code = \"([A-Z_]+)\"", (ROOT / "app" / "errors.py").read_text())
        words = (*codes, *PaymentMethod, "INTERNAL", "INVALID_QUERY", "SUCCESSFUL")
        assert f'"{name}"' in known or name in words, name


def test_every_error_code_it_names_exists() -> None:
    codes = set(re.findall(r"code = \"([A-Z_]+)\"", (ROOT / "app" / "errors.py").read_text())) | {
        "INTERNAL",
        "INVALID_QUERY",
    }
    table = README[README.index("| code | means |") : README.index("## Your business logic")]
    named = {
        word
        for row in table.splitlines()
        for word in re.findall(r"`([A-Z_]+)`", row.split("|")[1] if "|" in row else "")
    }
    assert named == codes


async def test_the_payment_by_hand(api: Api) -> None:
    [insert] = blocks("sql")
    order_id = await api.market.shop.connection.fetchval(insert)
    pay, watch = blocks("graphql")[:2]
    made = (await api.run(pay, order=str(order_id)))["createPayment"]
    assert made["amount"] == "12.30"
    url = made["action"]["url"]
    await api.market.http.get(url, follow_redirects=True)
    payment = await api.payment(made["id"])
    await api.market.pay(payment)
    await api.market.shop.settle()
    async with httpx.AsyncClient(trust_env=False) as http:
        streamed = await http.post(
            f"{api.url}/graphql",
            json={"query": watch, "variables": {"payment": made["id"]}},
            headers={"authorization": f"Bearer {api.token}", "accept": "text/event-stream"},
        )
    assert '"status":"SUCCESSFUL"' in streamed.text
    assert await api.market.shop.status_of(order_id) == "paid"


def test_the_snippets_are_those_the_tests_run() -> None:
    """tests/web/test_snippets.py runs them."""
    files = [
        ROOT / "app" / "web" / "snippets" / name for name in ("page.js", "wechat_page.js", "mini_program.js", "club.js")
    ]
    assert blocks("js") == [file.read_text(encoding="utf-8") for file in files]
    assert set(files) == set(files[0].parent.iterdir())


@pytest.fixture
async def worker(market: Market, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A worker with the README's flows."""
    module = types.ModuleType("flows_of_the_readme")
    exec("\n".join(blocks("python")), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    market.shop.config = replace(market.shop.config, flows=module.__name__)
    return await market.shop.open()


async def test_the_flow_runs(market: Market, worker: Runtime) -> None:
    payment = await market.create()
    await market.pay(payment)
    await market.shop.settle(worker)
    assert (
        await market.shop.connection.fetchval("select title from orders where id = $1", payment.order_id)
        == "Tea (paid)"
    )


async def test_the_subscription_begins_and_its_deduction_s_order_is_made_by_the_flow(api: Api, worker: Runtime) -> None:
    club = Club(api.market)
    order_id = await api.market.shop.order(amount="9.90", user_id=7, title="Club")
    join, watch = blocks("graphql")[2:]
    started = (await api.run(join, order=str(order_id)))["startCyclePayment"]
    assert started["action"]["__typename"] == "Redirect"
    cycle = await club.runtime.cycles.reload(int(started["id"]))
    await club.open(cycle)
    await api.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign")
    await api.market.shop.settle(worker)
    # To an hour at which deductions are made, whenever this runs.
    morning = datetime.combine(club.today() + timedelta(days=1), LATE, SHANGHAI)
    await api.market.advance(morning - club.runtime.clock.now())
    await api.market.shop.settle(worker)
    async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(20):
        headers = {"authorization": f"Bearer {api.token}", "accept": "text/event-stream"}
        body = {"query": watch, "variables": {"cycle": started["id"]}}
        async with http.stream("POST", f"{api.url}/graphql", json=body, headers=headers) as streamed:
            first = await anext(line async for line in streamed.aiter_lines() if line.startswith("data:"))
    assert '"status":"ACTIVE"' in first
    assert '"status":"PAID"' in first
    (deduction,) = await club.deductions(cycle)
    made = await club.connection.fetchrow(
        "select title, amount::text, status from orders where id = $1", deduction.order_id
    )
    assert made is not None
    assert tuple(made) == (f"Club {deduction.due_on} (paid)", "9.90", "paid")


def test_the_settings_example_is_complete() -> None:
    example = (ROOT / ".env.example").read_text()
    source = (ROOT / "app" / "config.py").read_text()
    read = set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", source))
    assert {name for name in read if not re.search(rf"^#?{name}=", example, flags=re.MULTILINE)} == set()
    assert len(read) > 30
