"""The index page: what is going on, at a glance, and nothing secret."""

from tests.sandbox.alipay.client import AlipayClient, new_number
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer


async def test_an_empty_sandbox_says_where_to_send_calls(sandbox: SandboxHandle) -> None:
    page = await sandbox.http.get(sandbox.base_url)
    assert "还没有交易" in page.text
    assert f"{sandbox.base_url}/gateway.do" in page.text
    assert "与本机一致" in page.text


async def test_trades_notices_clock_and_faults_are_shown_newest_first(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    first, second = new_number(), new_number()
    await alipay.opened(first, notify_url=merchant.notify_url)
    await alipay.opened(second)
    await sandbox.pay(first)
    await sandbox.advance(240)
    await sandbox.control("POST", "/faults", {"method": "alipay.trade.query", "kind": "20000", "count": 3}, status=201)
    live = (await sandbox.http.get(f"{sandbox.base_url}/live")).text
    assert live.index(second) < live.index(first)
    assert (await sandbox.trade(first))["pay_url"] in live
    assert "通知 1 条，发送 1 次，已确认 1 条" in live
    assert "比本机快 240 秒" in live
    assert "20000 × 3" in live
    assert live in (await sandbox.http.get(sandbox.base_url)).text


async def test_no_key_and_no_token_is_on_the_page(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> None:
    page = (await sandbox.http.get(sandbox.base_url)).text
    assert accounts["isv"]["app_id"] in page
    assert accounts["isv"]["app_auth_token"] not in page
    assert "PRIVATE KEY" not in page
