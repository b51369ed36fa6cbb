"""The README's snippets pay at the sandbox, in Node with what a browser or WeChat has built in, to the final state.

What is cut, cancelled or never answered on the page's side changes nothing of the result."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.auth import issue_token
from app.config import load_config
from tests.api.node import HERE, install
from tests.web.conftest import Stack

SNIPPETS = Path(__file__).resolve().parents[2] / "app" / "web" / "snippets"
PROGRAMS = Path(__file__).resolve().parent / "node"
MINI_PROGRAM, OFFICIAL_ACCOUNT = "wx5a0db00000000001", "wx5a0db00000000002"
USER = 7
_PATIENCE_S = 20


class Program:
    """A running Node program: what it says line by line, and what it is told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []

    async def hear(self, name: str) -> Any:
        """The value of the next line that says `name`; fails with all that was said instead."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while line := await self._process.stdout.readline():
                    self.said.append(json.loads(line))
                    if name in self.said[-1]:
                        return self.said[-1][name]
        except TimeoutError:
            pass
        raise AssertionError(f"never said {name!r}: {self.said}")

    async def hear_status(self, wanted: str) -> dict[str, Any]:
        """The payment once the page shows it in this state."""
        while True:
            shown = await self.hear("data")
            payment: dict[str, Any] = shown.get("payment") or {}
            if payment.get("status") == wanted:
                return payment

    async def tell(self, **command: Any) -> None:
        """One command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def end(self) -> None:
        """Waits until it ended by itself: nothing was left behind."""
        async with asyncio.timeout(_PATIENCE_S):
            rest, complaints = await self._process.communicate()
        assert self._process.returncode == 0, complaints.decode()
        self.said += [json.loads(line) for line in rest.splitlines()]
        assert complaints == b""


@asynccontextmanager
async def running(folder: Path, name: str, **settings: Any) -> AsyncIterator[Program]:
    """One of the programs of node/, beside the snippets and the libraries they import."""
    node = await asyncio.to_thread(install)
    for file in (*SNIPPETS.iterdir(), PROGRAMS / name):
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        node, name, json.dumps(settings), cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def token_of(stack: Stack, role: str = "user") -> str:
    """The shop's own token for its user."""
    return issue_token(load_config(stack.environ), str(USER), (role,), ttl=timedelta(hours=1))


async def ask(stack: Stack, token: str, query: str, **variables: Any) -> Any:
    """One operation; its data."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.post(
            f"{stack.url}/graphql",
            json={"query": query, "variables": variables},
            headers={"authorization": f"Bearer {token}"},
        )
    body = answer.json()
    assert "errors" not in body, body
    return body["data"]


async def new_order(stack: Stack) -> int:
    """An unpaid order of the user's."""
    order_id: int = await stack.database.fetchval(
        "insert into public.orders (user_id, title, amount) values ($1, 'Oolong', 12.30) returning id", USER
    )
    return order_id


async def assert_paid_once(stack: Stack, order_id: int) -> None:
    """The order becomes paid, by one payment."""
    async with asyncio.timeout(_PATIENCE_S):
        while (await stack.order(order_id))["status"] != "paid":
            await asyncio.sleep(0.02)
    rows = await stack.database.fetch("select status from shouyin.payment where order_id = $1", order_id)
    assert [row["status"] for row in rows] == ["SUCCESSFUL"]


async def assert_taken_by_wechat(stack: Stack, params: dict[str, str]) -> None:
    """WeChat's client would take these parameters: their signature and what they name."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        asked = params | {"return_url": f"{stack.url}/"}
        answer = await client.get(f"{stack.sandbox}/wechat/bridge", params=asked)
    assert answer.status_code in (302, 303), answer.text
    assert "/wechat/pay/" in answer.headers["location"]


@asynccontextmanager
async def mini_program(stack: Stack, folder: Path, order_id: int) -> AsyncIterator[Program]:
    """The mini-program's page on an order, up to WeChat's cashier, whose parameters are WeChat's."""
    async with running(
        folder,
        "mini_program.mjs",
        snippet=str(SNIPPETS / "mini_program.js"),
        api=stack.url,
        sandbox=stack.sandbox,
        token=token_of(stack),
        appId=MINI_PROGRAM,
        orderId=str(order_id),
    ) as program:
        asked = await program.hear("asked")
        assert set(asked) == {"timeStamp", "nonceStr", "package", "signType", "paySign"}
        await assert_taken_by_wechat(stack, asked | {"appId": MINI_PROGRAM})
        yield program


async def test_mini_program_pays_and_shows_the_result(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    async with mini_program(stack, tmp_path, order_id) as page:
        await page.hear("socket")
        await stack.pay_at_the_sandbox(order_id)
        await page.tell(answer="requestPayment:ok")
        assert (await page.hear_status("SUCCESSFUL"))["final"] is True
        await page.tell(leave=True)
        await page.end()
    assert sum("asked" in line for line in page.said) == 1
    payment = await stack.payment(order_id)
    assert (payment["method"], payment["app_id"]) == ("WECHAT_MINI_PROGRAM", MINI_PROGRAM)
    assert payment["created_by"] == str(USER)
    await assert_paid_once(stack, order_id)


async def test_mini_program_explains_a_cancellation_and_opens_the_same_cashier_again(
    stack: Stack, tmp_path: Path
) -> None:
    order_id = await new_order(stack)
    async with mini_program(stack, tmp_path, order_id) as page:
        first = next(line["asked"] for line in page.said if "asked" in line)
        await page.hear("socket")
        await page.tell(answer="requestPayment:fail cancel")
        while not (note := (await page.hear("data"))["note"]):
            pass
        assert note == "用户取消了支付：有效期内可再次支付。"
        assert (await stack.payment(order_id))["status"] == "PENDING"
        await page.tell(press="openCashier")
        assert await page.hear("asked") == first
        await stack.pay_at_the_sandbox(order_id)
        await page.hear_status("SUCCESSFUL")
        await page.tell(leave=True)
        await page.end()
    await assert_paid_once(stack, order_id)


async def test_mini_program_on_an_iphone_learns_the_result_when_it_is_shown_again(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    async with mini_program(stack, tmp_path, order_id) as page:
        await page.hear("socket")
        await page.tell(cut=False)  # nobody is told, and requestPayment never answers
        await stack.pay_at_the_sandbox(order_id)
        await assert_paid_once(stack, order_id)
        await page.tell(show=True)
        await page.hear_status("SUCCESSFUL")
        await page.tell(leave=True)
        await page.end()


async def test_mini_program_connects_again_by_itself_and_misses_nothing(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    async with mini_program(stack, tmp_path, order_id) as page:
        await page.hear("socket")
        await page.tell(cut=True)
        await stack.pay_at_the_sandbox(order_id)
        await page.hear("socket")
        await page.hear_status("SUCCESSFUL")
        await page.tell(leave=True)
        await page.end()
    await assert_paid_once(stack, order_id)


async def test_mini_program_left_while_it_waits_leaves_nothing_behind(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    async with mini_program(stack, tmp_path, order_id) as page:
        await page.hear("socket")
        await page.tell(cut=True)
        await page.tell(leave=True)
        await page.end()


async def test_mini_program_opened_twice_pays_for_one_payment(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    async with mini_program(stack, folders[0], order_id) as first, mini_program(stack, folders[1], order_id) as second:
        await stack.pay_at_the_sandbox(order_id)
        assert (await first.hear_status("SUCCESSFUL"))["id"] == (await second.hear_status("SUCCESSFUL"))["id"]
    await assert_paid_once(stack, order_id)


async def test_mini_program_pays_a_closed_payment_s_order_with_the_next_attempt(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    async with mini_program(stack, tmp_path, order_id) as page:
        await page.hear("socket")
        await close_payment(stack, order_id)
        await page.hear_status("CLOSED")
        await page.tell(press="pay")
        await assert_taken_by_wechat(stack, await page.hear("asked") | {"appId": MINI_PROGRAM})
        await stack.pay_at_the_sandbox(order_id)
        await page.hear_status("SUCCESSFUL")
        await page.tell(leave=True)
        await page.end()
    rows = await stack.database.fetch("select status from shouyin.payment where order_id = $1 order by id", order_id)
    assert [row["status"] for row in rows] == ["CLOSED", "SUCCESSFUL"]


async def close_payment(stack: Stack, order_id: int) -> None:
    """Closes the order's newest payment through the API."""
    query = "mutation ($id: ID!) { closePayment(id: $id) { status } }"
    closed = await ask(stack, token_of(stack), query, id=str((await stack.payment(order_id))["id"]))
    assert closed == {"closePayment": {"status": "CLOSED"}}


async def test_phone_outside_wechat_goes_on_in_the_mini_program_and_pays_there(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    # An administrator says once to which pages everybody may link.
    save = "mutation ($input: SaveWechatAppInput!) { saveWechatApp(input: $input) { linkPages } }"
    app = {"appId": MINI_PROGRAM, "kind": "MINI_PROGRAM", "name": "Tea", "linkPages": ["pages/pay/pay"]}
    await ask(stack, token_of(stack, "admin"), save, input=app)
    folders = [tmp_path / "page", tmp_path / "mini-program"]
    for folder in folders:
        folder.mkdir()
    wake = [MINI_PROGRAM, "pages/pay/pay", f"orderId={order_id}"]
    async with running(folders[0], "page.mjs", api=stack.url, token=token_of(stack), wake=wake) as page:
        left = await page.hear("left")
        await page.end()
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        opened = await client.get(left)
    assert (opened.status_code, left.startswith(stack.sandbox)) == (200, True)
    for text in (MINI_PROGRAM, "pages/pay/pay", f"orderId={order_id}"):
        assert f"<code>{text}</code>" in opened.text
    async with mini_program(stack, folders[1], order_id) as program:
        await stack.pay_at_the_sandbox(order_id)
        await program.hear_status("SUCCESSFUL")
    await assert_paid_once(stack, order_id)


@asynccontextmanager
async def page_in_wechat(stack: Stack, folder: Path, order_id: int) -> AsyncIterator[Program]:
    """The web page inside WeChat on an order: logged in, and at WeChat's cashier."""
    async with running(
        folder,
        "wechat_page.mjs",
        api=stack.url,
        token=token_of(stack),
        appId=OFFICIAL_ACCOUNT,
        orderId=str(order_id),
    ) as program:
        asked = await program.hear("asked")
        assert asked["name"] == "getBrandWCPayRequest"
        assert set(asked["params"]) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}
        await assert_taken_by_wechat(stack, asked["params"])
        yield program


async def hear_state(page: Program, wanted: str) -> None:
    """Returns once the page was given this state."""
    while (await page.hear("state"))["status"] != wanted:
        pass


async def test_page_in_wechat_logs_in_pays_and_shows_the_result(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    async with page_in_wechat(stack, tmp_path, order_id) as page:
        await stack.pay_at_the_sandbox(order_id)
        await page.tell(answer={"err_msg": "get_brand_wcpay_request:ok"})
        await hear_state(page, "SUCCESSFUL")
        await page.end()
    said = {name: value for line in page.said for name, value in line.items()}
    assert said["left"].startswith(f"{stack.url}/wechat/oauth/{OFFICIAL_ACCOUNT}?scope=snsapi_base&return=http")
    assert said["address"] == f"{stack.url}/shop/pay?order={order_id}"  # no token is left in it
    assert said["note"] == ""
    payment = await stack.payment(order_id)
    assert (payment["method"], payment["app_id"]) == ("WECHAT_JSAPI", OFFICIAL_ACCOUNT)
    assert payment["created_by"] == str(USER)
    await assert_paid_once(stack, order_id)


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ({"err_msg": "get_brand_wcpay_request:cancel"}, "用户取消了支付：有效期内可再次支付。"),
        (
            {"err_msg": "get_brand_wcpay_request:fail", "err_desc": "调用支付JSAPI缺少参数：total_fee"},
            "微信客户端未取到金额：package 不是支付返回的「prepay_id=…」、prepay_id 为空或已过期（2 小时），"
            "或页面 appId 与下单 appid 不一致。请原样传入支付返回的参数，并确认金额不低于 0.01 元、商户号未受限。",
        ),
    ],
    ids=["cancelled", "failed"],
)
async def test_page_in_wechat_explains_what_the_cashier_said_and_believes_the_record(
    stack: Stack, tmp_path: Path, answer: dict[str, str], note: str
) -> None:
    order_id = await new_order(stack)
    async with page_in_wechat(stack, tmp_path, order_id) as page:
        await page.tell(answer=answer)
        assert await page.hear("note") == note
        assert (await stack.payment(order_id))["status"] == "PENDING"
        await stack.pay_at_the_sandbox(order_id)
        await hear_state(page, "SUCCESSFUL")
        await page.end()
    await assert_paid_once(stack, order_id)


async def test_page_in_wechat_needs_neither_the_cashier_s_word_nor_its_first_socket(
    stack: Stack, tmp_path: Path
) -> None:
    order_id = await new_order(stack)
    async with page_in_wechat(stack, tmp_path, order_id) as page:
        await page.tell(cut=True)
        await stack.pay_at_the_sandbox(order_id)
        await hear_state(page, "SUCCESSFUL")
        await page.end()
    assert sum("asked" in line for line in page.said) == 1
    await assert_paid_once(stack, order_id)


@pytest.mark.parametrize("method", ["ALIPAY_WAP", "WECHAT_H5"])
async def test_page_pays_by_redirect_and_watches(stack: Stack, tmp_path: Path, method: str) -> None:
    order_id = await new_order(stack)
    asked = {"orderId": str(order_id), "method": method, "subject": "Oolong", "idempotencyKey": f"order-{order_id}-1"}
    async with running(tmp_path, "page.mjs", api=stack.url, token=token_of(stack), input=asked) as page:
        paying = await page.hear("paying")
        assert paying["action"]["__typename"] == "Redirect"
        await hear_state(page, "PENDING")
        async with httpx.AsyncClient(trust_env=False, timeout=20, follow_redirects=True) as client:
            shown = await client.get(paying["action"]["url"], headers={"referer": f"{stack.url}/"})
        assert shown.status_code == 200
        await stack.pay_at_the_sandbox(order_id)
        await hear_state(page, "SUCCESSFUL")
        await page.end()
    await assert_paid_once(stack, order_id)


async def test_page_joins_and_shows_the_history_of_deductions(stack: Stack, tmp_path: Path) -> None:
    order_id = await new_order(stack)
    asked = {
        "orderId": str(order_id),
        "price": "12.30",
        "subject": "Club",
        "intervalDays": 7,
        "scene": "INDUSTRY|DIGITAL_MEDIA",
        "idempotencyKey": f"order-{order_id}",
    }
    async with running(tmp_path, "club.mjs", api=stack.url, token=token_of(stack), input=asked) as page:
        joined = await page.hear("joined")
        to_sign = (await page.hear("shown"))["sign"]
        assert to_sign["link"].startswith("alipays://platformapi/startapp?")
        await sign(stack, joined["id"], to_sign["code"])
        while "history" not in (shown := await page.hear("shown")):
            pass
        # A second payer's wish, or the same page's after a lost answer: the key says which it is.
        again = "mutation ($input: StartCyclePaymentInput!) { startCyclePayment(input: $input) { id } }"
        assert await ask(stack, token_of(stack), again, input=asked) == {"startCyclePayment": {"id": joined["id"]}}
        moved = "mutation ($to: DateTime!) { advanceClock(to: $to) { now } }"
        now = (await ask(stack, token_of(stack), "{ clock { now } }"))["clock"]["now"]
        to = datetime.fromisoformat(now) + timedelta(days=8)
        await ask(stack, token_of(stack, "admin"), moved, to=to.isoformat())
        while len(shown["history"]) < 2 or not all("已扣款" in line for line in shown["history"]):
            shown = await page.hear("shown")
        await page.tell(leave=True)
        await page.end()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d ¥12\.30 已扣款", line) for line in shown["history"])
    orders = await stack.database.fetch(
        "select o.status from shouyin.deduction d join public.orders o on o.id = d.order_id"
        " where d.cycle_payment_id = $1",
        int(joined["id"]),
    )
    assert [row["status"] for row in orders] == ["paid", "paid"]


async def sign(stack: Stack, cycle_id: str, url: str) -> None:
    """The payer opens the link and signs."""
    number = await stack.database.fetchval(
        "select external_agreement_no from shouyin.cycle_payment where id = $1", int(cycle_id)
    )
    async with httpx.AsyncClient(trust_env=False, timeout=20, follow_redirects=True) as client:
        assert (await client.get(url)).status_code == 200
        signed = await client.post(f"{stack.sandbox}/_control/agreements/{number}/sign")
    assert signed.status_code == 200, signed.text
