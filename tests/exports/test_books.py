"""The books of a period: which rows, for whom, whole or visibly not; and flat in memory whatever their size."""

import asyncio
import csv
import io
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from app.auth import Principal, issue_token
from app.cli import commands
from app.errors import Forbidden, InvalidInput, NotFound
from app.exports.books import read_period
from app.exports.table import Writer
from app.main import create_app
from tests.fixtures.plans import plan_of
from tests.fixtures.shop import ADMIN, BUYER, Shop
from tests.fixtures.web import serving

FINANCE = Principal(sub="f-1", roles=frozenset({"finance"}))
NOVEMBER = ("2026-11-01", "2026-11-30")

PAID = """
insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, subject, out_trade_no, transaction_id, status, created_by, input_hash, expires_at, created_at,
  updated_at, paid_at)
values ($1, '7', 1, 'ALIPAY', 'ALIPAY_PAGE', $2, $2, $3, 'Tea', 'SY' || $4::text, 'T1', 'SUCCESSFUL', '7', 'x', now(),
  $5::timestamptz - interval '1 minute', $5, $5)
returning id
"""
REFUND = """
insert into shouyin.refund (payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, status, reason,
  created_by, input_hash, created_at, updated_at, refunded_at)
values ($1, 1, '7', 1, $2, 'SR' || $3::text, $4, 'broken', 'c-1', 'x', $5::timestamptz - interval '1 hour', $5,
  case when $4 = 'REFUNDED' then $5 end)
"""
MANY = """
insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  subject, out_trade_no, transaction_id, status, created_by, input_hash, expires_at, created_at, updated_at, paid_at)
select 1, '7', 1, 'ALIPAY', 'ALIPAY_PAGE', n, n, 'Tea ' || n, 'SY' || n + 10000, 'T' || n, 'SUCCESSFUL', '7', 'x',
  t, t, t, t
from (
  select n, timestamptz '2026-11-01 00:00:00+08' + (n / 10) * interval '1 second' as t
  from generate_series(1, $1::int) n)
"""


async def pay(shop: Shop, at: str, *, fen: int = 1230, back: int = 0, number: int = 0) -> int:
    order = await shop.order()
    paid_at = datetime.fromisoformat(at)
    payment_id: int = await shop.connection.fetchval(PAID, order, fen, back, f"{order + number:06}", paid_at)
    return payment_id


async def pay_many(shop: Shop, count: int) -> None:
    """Payments of 0.01, 0.02, … yuan from the first of November on, ten a second."""
    assert await shop.order() == 1
    await shop.connection.execute(MANY, count)


async def read(shop: Shop, name: str, *asked: Any, caller: Principal = ADMIN) -> list[list[str]]:
    """The lines of an export, its head first."""
    exports = shop.runtime.exports
    book = await exports.open(caller, name, *asked, correlation_id="c-x", address="10.0.0.3")
    text = b"".join([page async for page in exports.pages(book)])
    return list(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline="")))


@pytest.fixture
async def month(shop: Shop) -> list[int]:
    """Payments around the edges of November in Shanghai: before, first instant, in, last instant, after."""
    return [
        await pay(shop, "2026-10-31T23:59:59.999999+08:00"),
        await pay(shop, "2026-11-01T00:00:00+08:00"),
        await pay(shop, "2026-11-15T12:00:00+08:00", fen=500, back=500),
        await pay(shop, "2026-11-30T23:59:59.999999+08:00", fen=1000, back=1),
        await pay(shop, "2026-12-01T00:00:00+08:00"),
    ]


# --- which rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "statuses", "found", "sums"),
    [
        (*NOVEMBER, [], [1, 2, 3], ("27.30", "27.30", "5.01")),
        ("2026-10-31", "2026-12-01", [], [0, 1, 2, 3, 4], ("51.90", "51.90", "5.01")),
        ("2026-11-01", "2026-11-01", [], [1], ("12.30", "12.30", "0.00")),
        ("2026-11-02", "2026-11-14", [], [], ("0.00", "0.00", "0.00")),
        (*NOVEMBER, ["REFUNDED"], [2], ("5.00", "5.00", "5.00")),
        (*NOVEMBER, ["PARTIALLY_REFUNDED", "SUCCESSFUL"], [1, 3], ("22.30", "22.30", "0.01")),
    ],
)
async def test_payments_of_a_period(
    shop: Shop, month: list[int], first: str, last: str, statuses: list[str], found: list[int], sums: tuple[str, ...]
) -> None:
    head, *rows, total = await read(shop, "payments", first, last, statuses)
    assert [int(row[0]) for row in rows] == [month[place] for place in found]
    assert tuple(total[head.index(name)] for name in ("amount", "paid_amount", "refunded_amount")) == sums
    assert total[0] == f"total: {len(found)} row{'' if len(found) == 1 else 's'}"


async def test_refunds_count_when_they_went_through(shop: Shop, month: list[int]) -> None:
    for number, (fen, status, at) in enumerate(
        [
            (100, "REFUNDED", "2026-11-30T23:59:59+08:00"),
            (200, "REFUNDED", "2026-12-01T00:00:00+08:00"),
            (300, "FAILED", "2026-11-10T00:00:00+08:00"),
            (400, "PENDING", "2026-11-10T00:00:00+08:00"),
        ]
    ):
        await shop.connection.execute(
            REFUND, month[0], fen, f"{number:06}", status, datetime.fromisoformat(at).astimezone(UTC)
        )
    head, *rows, total = await read(shop, "refunds", *NOVEMBER)
    shown = [[row[head.index(name)] for name in ("payment_id", "amount", "status", "refunded_at")] for row in rows]
    assert shown == [[str(month[0]), "1.00", "REFUNDED", "2026-11-30 23:59:59"]]
    assert total[head.index("refunded_amount")] == "1.00"


async def test_many_that_were_paid_in_one_instant_come_once_each(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.exports.books._PAGE", 3)
    ids = [await pay(shop, "2026-11-05T12:00:00+08:00") for _ in range(10)]
    _, *rows, total = await read(shop, "payments", *NOVEMBER)
    assert [int(row[0]) for row in rows] == ids
    assert total[0] == "total: 10 rows"


# --- who, and what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "statuses", "field"),
    [
        (None, "2026-11-30", [], "from"),
        ("", "2026-11-30", [], "from"),
        ("2026-11-01", None, [], "to"),
        ("01.11.2026", "2026-11-30", [], "from"),
        ("20261101", "2026-11-30", [], "from"),
        ("2026-W45", "2026-11-30", [], "from"),
        ("2026-11-1", "2026-11-30", [], "from"),
        ("２０２６-11-01", "2026-11-30", [], "from"),
        ("0001-01-01", "2026-11-30", [], "from"),
        ("2026-11-01", "2026-11-31", [], "to"),
        ("2026-11-01T00:00", "2026-11-30", [], "from"),
        ("2026-11-02", "2026-11-01", [], "to"),
        ("2025-11-01", "2026-11-02", [], "to"),
        ("2026-11-01", "2026-11-30", ["PENDING"], "status"),
        ("2026-11-01", "2026-11-30", ["SUCCESSFUL", "paid"], "status"),
    ],
)
async def test_wrong_input_names_the_parameter(
    shop: Shop, first: str | None, last: str | None, statuses: list[str], field: str
) -> None:
    before = await shop.count("audit")
    with pytest.raises(InvalidInput) as refused:
        await shop.runtime.exports.open(ADMIN, "payments", first, last, statuses)
    assert refused.value.field == field
    assert refused.value.message.startswith(f"{field}: ")
    assert await shop.count("audit") == before


def test_a_year_at_once_and_the_last_of_days() -> None:
    assert (read_period("2024-01-01", "2024-12-31").ends - read_period("2024-01-01", "2024-12-31").begins).days == 366
    with pytest.raises(InvalidInput):
        read_period("2024-01-01", "2025-01-01")
    with pytest.raises(InvalidInput):
        read_period("9999-12-31", "9999-12-31")


async def test_whoever_may_and_what_is_written_down(shop: Shop, month: list[int]) -> None:
    before = await shop.count("audit")
    for caller in (BUYER, FINANCE):
        with pytest.raises(Forbidden, match=r"payment\.export"):
            await read(shop, "payments", *NOVEMBER, caller=caller)
    with pytest.raises(NotFound):
        await read(shop, "people", *NOVEMBER)
    assert await shop.count("audit") == before
    await shop.runtime.permissions.grant(ADMIN, "finance", "payment.export")
    granted = await shop.runtime.permissions.list(ADMIN)
    assert [row.scope for row in granted if row.role == "finance"] == ["ALL"]
    assert len(await read(shop, "payments", *NOVEMBER, ["REFUNDED"], caller=FINANCE)) == 3
    entry = await shop.connection.fetchrow(
        "select actor, action, subject, address, correlation_id, details::text as details"
        " from shouyin.audit order by id desc limit 1"
    )
    assert entry is not None
    assert tuple(entry) == (
        "f-1", "payment.export", "payments", "10.0.0.3", "c-x",
        '{"to": "2026-11-30", "from": "2026-11-01", "status": ["REFUNDED"]}',
    )  # fmt: skip
    await shop.runtime.permissions.revoke(ADMIN, "finance", "payment.export")
    with pytest.raises(Forbidden):
        await read(shop, "payments", *NOVEMBER, caller=FINANCE)


# --- as a file over HTTP ------------------------------------------------------------------------------------------


class Door:
    """The API of a shop, and callers."""

    def __init__(self, shop: Shop, origin: str, http: httpx.AsyncClient) -> None:
        self.shop, self.origin, self.http = shop, origin, http

    def headers(self, role: str | None) -> dict[str, str]:
        if role is None:
            return {}
        token = issue_token(self.shop.config, "f-1", (role,), ttl=timedelta(hours=1), clock=self.shop.clock)
        return {"authorization": f"Bearer {token}"}

    async def get(self, path: str, role: str | None = "admin") -> httpx.Response:
        return await self.http.get(f"{self.origin}/exports/{path}", headers=self.headers(role))


@pytest.fixture
async def door(shop: Shop) -> AsyncIterator[Door]:
    app = create_app(replace(shop.config, shutdown_grace_s=0.1), clock=shop.clock)
    async with serving(app) as origin, httpx.AsyncClient(trust_env=False, timeout=30) as http:
        yield Door(shop, origin, http)


async def test_a_file_over_http(door: Door, month: list[int]) -> None:
    answer = await door.get("payments.csv?from=2026-11-01&to=2026-11-30&status=REFUNDED&status=SUCCESSFUL")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="payments-2026-11-01-2026-11-30.csv"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content.startswith(b"\xef\xbb\xbfid,")
    lines = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert [line[0] for line in lines[1:]] == [str(month[1]), str(month[2]), "total: 2 rows"]
    assert (await door.get("refunds.csv?from=2026-11-01&to=2026-11-30")).text.endswith("\r\n")


@pytest.mark.parametrize(
    ("path", "role", "status", "code", "field"),
    [
        ("payments.csv?from=2026-11-01&to=2026-11-30", None, 401, "UNAUTHENTICATED", None),
        ("payments.csv?from=2026-11-01&to=2026-11-30", "user", 403, "FORBIDDEN", None),
        ("people.csv?from=2026-11-01&to=2026-11-30", None, 401, "UNAUTHENTICATED", None),
        ("people.csv?from=2026-11-01&to=2026-11-30", "admin", 404, "NOT_FOUND", "name"),
        ("payments.xlsx", "admin", 404, "NOT_FOUND", None),
        ("payments.csv/../refunds.csv", "user", 403, "FORBIDDEN", None),
        ("payments.csv", "admin", 400, "INVALID_INPUT", "from"),
        ("payments.csv?from=2026-11-01", "admin", 400, "INVALID_INPUT", "to"),
        ("payments.csv?from=2026-11-01&to=2026-13-01", "admin", 400, "INVALID_INPUT", "to"),
        ("payments.csv?from=2026-11-01&from=2026-11-02&to=2026-11-30", "admin", 400, "INVALID_INPUT", "from"),
        ("payments.csv?form=2026-11-01&to=2026-11-30", "admin", 400, "INVALID_INPUT", "form"),
        ("payments.csv?from=2026-11-01&to=2026-11-30&status=", "admin", 400, "INVALID_INPUT", "status"),
        ("payments.csv?from=%ff&to=2026-11-30", "admin", 400, "INVALID_INPUT", None),
        (f"payments.csv?from=2026-11-01&to={'9' * 1100}", "admin", 400, "INVALID_INPUT", None),
    ],
)
async def test_what_is_refused_over_http(
    door: Door, path: str, role: str | None, status: int, code: str, field: str | None
) -> None:
    before = await door.shop.count("audit")
    answer = await door.get(path, role)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["extensions"]["code"]) == (status, code)
    assert error["extensions"].get("field") == field
    assert error["extensions"]["messageZh"]
    assert await door.shop.count("audit") == before


async def test_files_are_only_read(door: Door) -> None:
    answer = await door.http.post(f"{door.origin}/exports/payments.csv", headers=door.headers("admin"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


async def test_a_file_that_breaks_off_is_seen_to(door: Door, month: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Writer) -> bytes:
        raise ConnectionError("the database went away")

    monkeypatch.setattr(Writer, "foot", broken)
    with pytest.raises(httpx.RemoteProtocolError):
        await door.get("payments.csv?from=2026-11-01&to=2026-11-30")


async def test_a_reader_that_goes_away_is_not_written_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    await pay_many(door.shop, 30_000)
    monkeypatch.setattr("app.exports.books._PAGE", 100)
    written = 0
    rows = Writer.rows

    def counted(self: Writer, page: Any) -> bytes:
        nonlocal written
        written += len(page)
        return rows(self, page)

    monkeypatch.setattr(Writer, "rows", counted)
    url = f"{door.origin}/exports/payments.csv?from=2026-11-01&to=2026-11-30"
    async with door.http.stream("GET", url, headers=door.headers("admin")) as answer:
        arrived = 0
        async for chunk in answer.aiter_raw():
            arrived += len(chunk)
            if arrived > 20_000:
                break
    seen = -1
    async with asyncio.timeout(10):
        while seen != written:
            seen = written
            # A round trip, in which one that went on would have written more.
            assert (await door.get("people.csv")).status_code == 404
    assert 0 < written < 30_000


# --- size ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells a process its memory there")
async def test_two_hundred_thousand_rows_in_flat_memory_exact_to_the_fen(shop: Shop) -> None:
    count = 200_000
    await pay_many(shop, count)
    await shop.connection.execute("analyze shouyin.payment")
    exports = shop.runtime.exports
    book = await exports.open(ADMIN, "payments", *NOVEMBER)
    assert book.about_rows == count
    writer, length, sum_fen = Writer(book.table), 0, 0
    place = [name.removesuffix("_fen") for name in book.table.columns].index("paid_amount")
    resident: list[int] = []
    async for page in exports.pages(book, writer):
        if page[:1].isdigit():
            sum_fen += sum(int(line[place].replace(".", "")) for line in csv.reader(io.StringIO(page.decode())))
        length += len(page)
        resident.append(resident_bytes())
    assert page.startswith(b"total: 200000 rows,")
    assert sum_fen == writer.totals.sums_fen["paid_amount_fen"] == count * (count + 1) // 2
    assert length > 20_000_000
    # All rows at once take 200 MB. What the first ten pages needed is enough for the other ninety.
    assert max(resident) - resident[10] < 8_000_000, resident


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", ["export.paid_payments", "export.made_refunds"])
async def test_a_page_leans_on_its_index(shop: Shop, name: str) -> None:
    await pay_many(shop, 20_000)
    await shop.connection.execute(
        "insert into shouyin.refund (payment_id, order_id, merchant_account_id, amount_fen, out_refund_no, status,"
        " created_by, input_hash, created_at, updated_at, refunded_at)"
        " select id, 1, 1, 1, 'SR' || id + 10000, 'REFUNDED', '7', 'x', paid_at, paid_at, paid_at from shouyin.payment"
    )
    await shop.connection.execute("vacuum analyze")
    plan = await plan_of(shop.connection, name)
    assert not re.search(r"Seq Scan on (payment|refund)|Sort", plan)
    assert ("payment_by_paid_at" if "payments" in name else "refund_by_refunded_at") in plan


# --- the command --------------------------------------------------------------------------------------------------


async def test_the_command_writes_the_same_file(
    shop: Shop, month: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        "DATABASE_URL": shop.config.database_url, "REDIS_URL": shop.config.redis_url, "PUBLIC_URL": "http://x",
        "MASTER_KEYS": "test:" + "A" * 43 + "=", "JWT_SECRET": "a secret of a test, thirty-two bytes or more",
        "SHOUYIN_HOME": str(tmp_path), "LOG_FORMAT": "text",
    }  # fmt: skip

    def run(*words: str) -> Any:
        return CliRunner().invoke(commands, ["export", *words], env=environ)

    out = tmp_path / "november.csv"
    asked = ("payments", "--from", "2026-11-01", "--to", "2026-11-30", "--out", str(out))
    done = await asyncio.to_thread(run, *asked)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == (f"{out}: rows 3, amount 27.30, paid_amount 27.30, refunded_amount 5.01")
    assert out.stat().st_mode & 0o777 == 0o600
    lines = list(csv.reader(io.StringIO(out.read_bytes().decode("utf-8-sig"), newline="")))
    assert lines == await read(shop, "payments", *NOVEMBER)
    entry = "select actor like 'cli:%' from shouyin.audit where action = 'payment.export' order by id limit 1"
    assert await shop.connection.fetchval(entry)
    for words, said in (
        (("payments", "--from", "november", "--to", "2026-11-30", "--out", str(out)), "from: is 'november'"),
        ((*asked[:-1], str(tmp_path / "none" / "x.csv")), "No such file or directory"),
    ):
        refused = await asyncio.to_thread(run, *words)
        assert refused.exit_code == 1
        assert said in refused.output
    assert sorted(path.name for path in tmp_path.glob("*november*")) == ["november.csv"]
