"""The index page: what is going on, at a glance, and nothing secret."""

from tests.sandbox.alipay.client import AlipayClient, new_number
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.client import WechatClient, order_number


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


async def test_both_providers_trades_stand_in_one_list_with_the_accounts_below(
    sandbox: SandboxHandle, alipay: AlipayClient, wechat: WechatClient
) -> None:
    numbers = [order_number(), new_number(), order_number()]
    await wechat.prepay(numbers[0], amount={"total": 1230})
    await alipay.opened(numbers[1])
    await wechat.prepay(numbers[2])
    await sandbox.pay(numbers[0])
    page = (await sandbox.http.get(sandbox.base_url)).text
    places = [page.index(number) for number in numbers]
    assert places == sorted(places, reverse=True)
    assert (await sandbox.trade(numbers[0]))["pay_url"] in page
    for text in ("¥12.30", "微信支付 · JSAPI · ", "支付宝 · page · ", "mchid 1900000001", "sub_mch_id 1900000106"):
        assert text in page
    for secret in ("apiv3_key", "private_key"):
        assert wechat.account[secret] not in page
