"""Agreements from the signing link to their end: pages, queries, the plan, and every notice on its way."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from tests.sandbox.alipay.client import (
    SCENE,
    AlipayClient,
    agreement_number,
    agreement_terms,
    day,
    is_signed,
    new_number,
    weekly,
    without,
)
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer

SIGN = "alipay.user.agreement.page.sign"
QUERY = "alipay.user.agreement.query"
UNSIGN = "alipay.user.agreement.unsign"
MODIFY = "alipay.user.agreement.executionplan.modify"
DONE = "http://127.0.0.1:8000/done"
PAYER = "2088123412341234"

VECTORS = Path(__file__).resolve().parents[4] / "shared/vectors/alipay/notify_verify_derived.json"


async def truth(sandbox: SandboxHandle, number: str) -> dict[str, Any]:
    (agreement,) = (await sandbox.control("GET", f"/agreements?external_agreement_no={number}"))["agreements"]
    found: dict[str, Any] = agreement
    return found


async def sign(sandbox: SandboxHandle, number: str, **options: object) -> dict[str, Any]:
    return await sandbox.control("POST", f"/agreements/{number}/sign", options)


async def signed(sandbox: SandboxHandle, alipay: AlipayClient, **biz: object) -> dict[str, Any]:
    """A new agreement in force."""
    number = agreement_number()
    await alipay.signing_page(number, biz=biz)
    agreement: dict[str, Any] = (await sign(sandbox, number))["agreement"]
    return agreement


def by_number(agreement: dict[str, Any]) -> dict[str, object]:
    return {
        "personal_product_code": agreement["personal_product_code"],
        "sign_scene": agreement["scene"],
        "external_agreement_no": agreement["external_agreement_no"],
    }


async def page_error(alipay: AlipayClient, biz: object, *, status: int = 200, method: str = SIGN) -> str:
    response = await alipay.http.get(alipay.link(method, biz))
    assert (response.status_code, response.headers["content-type"]) == (status, "text/html;charset=gbk")
    return response.content.decode("gbk")


async def set_gateway(sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer) -> None:
    gateway = {"app_gateway": f"{merchant.base_url}/app-gateway"}
    await sandbox.control("POST", f"/alipay/apps/{alipay.account['app_id']}", gateway)


# Signing.


async def test_an_agreement_is_not_there_until_it_is_signed(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = agreement_number()
    url = await alipay.signing_page(number)
    page = await alipay.http.get(url)
    for text in (number, alipay.account["seller_id"], SCENE, "每 7 天", "¥30.00", f"user-{number}", "同意协议并签约"):
        assert text in page.text
    offered = await truth(sandbox, number)
    assert (offered["status"], offered["agreement_no"], offered["sign_url"]) == ("OFFERED", None, url)
    key = by_number(offered)
    assert await alipay.refused(QUERY, key) == "USER_AGREEMENT_NOT_EXIST"
    assert await alipay.refused(UNSIGN, key) == "AGREEMENT_NOT_EXIST"
    assert await sandbox.notices() == []


async def test_signing_on_the_page_notifies_and_returns(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = agreement_number()
    url = await alipay.signing_page(number, notify_url=merchant.notify_url, return_url=f"{DONE}?mine=1")
    answer = await alipay.http.post(f"{url}/sign", data={"payer": PAYER})
    assert answer.status_code == 303
    parts = urlsplit(answer.headers["location"])
    returned = dict(parse_qsl(parts.query))
    assert (f"{parts.scheme}://{parts.netloc}{parts.path}", returned.pop("mine")) == (DONE, "1")
    text = without(returned, "sign", "sign_type").encode()
    assert is_signed(alipay.account["alipay_public_key"], text, returned["sign"])

    agreement = await truth(sandbox, number)
    assert (agreement["status"], agreement["payer"]) == ("NORMAL", PAYER)
    (received,) = await merchant.wait_for(1)
    fields = alipay.read_notification(received.body)
    assert fields.pop("notify_id") == agreement["notify_ids"][0]
    for name in ("sign", "notify_time"):
        fields.pop(name)
    signed_at = fields["sign_time"]
    assert fields == {
        "notify_type": "dut_user_sign",
        "status": "NORMAL",
        "app_id": alipay.account["app_id"],
        "auth_app_id": alipay.account["app_id"],
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "agreement_no": agreement["agreement_no"],
        "external_agreement_no": number,
        "external_logon_id": f"user-{number}",
        "personal_product_code": "CYCLE_PAY_AUTH_P",
        "sign_scene": SCENE,
        "alipay_user_id": PAYER,
        "alipay_logon_id": "234***@sandbox.com",
        "sign_time": signed_at,
        "valid_time": signed_at,
        "invalid_time": "2115-02-01 00:00:00",
    }
    assert {name: returned[name] for name in ("agreement_no", "status", "sign_time")} == {
        "agreement_no": agreement["agreement_no"],
        "status": "NORMAL",
        "sign_time": signed_at,
    }


async def test_the_answer_to_a_query(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay, sign_validity_period="90d", external_logon_id="小明")
    answer = await alipay.succeed(QUERY, {"agreement_no": agreement["agreement_no"]})
    signed_at = answer["sign_time"]
    assert answer == {
        "code": "10000",
        "msg": "Success",
        "agreement_no": agreement["agreement_no"],
        "status": "NORMAL",
        "sign_time": signed_at,
        "valid_time": signed_at,
        "invalid_time": answer["invalid_time"],
        "next_deduct_time": day(),
        "execution_plans": [
            {"period_id": "1", "execute_time": day(), "latest_execute_time": day(), "single_amount": "30.00"}
        ],
        "single_quota": "30.00",
        "external_agreement_no": agreement["external_agreement_no"],
        "external_logon_id": "小明",
        "principal_id": agreement["payer"],
        "pricipal_type": "CARD",
        "alipay_logon_id": f"{agreement['payer'][-3:]}***@sandbox.com",
        "sign_scene": SCENE,
        "personal_product_code": "CYCLE_PAY_AUTH_P",
        "third_party_type": "PARTNER",
    }
    assert answer["invalid_time"][:10] == day(after=90)
    assert await alipay.succeed(QUERY, by_number(agreement)) == answer
    by_payer = {key: value for key, value in by_number(agreement).items() if key != "external_agreement_no"}
    assert await alipay.succeed(QUERY, by_payer | {"alipay_user_id": agreement["payer"]}) == answer
    for other in ({"sign_scene": "INDUSTRY|TV"}, {"personal_product_code": "GENERAL_WITHHOLDING_P"}):
        assert await alipay.refused(QUERY, by_number(agreement) | other) == "USER_AGREEMENT_NOT_EXIST"


async def test_a_payer_signs_once_in_a_scene(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    first, second, elsewhere = agreement_number(), agreement_number(), agreement_number()
    for number, biz in ((first, {}), (second, {}), (elsewhere, {"sign_scene": "INDUSTRY|TV"})):
        await alipay.signing_page(number, biz=biz)
    await sign(sandbox, first, payer=PAYER)
    page = await alipay.http.post(f"{(await truth(sandbox, second))['sign_url']}/sign", data={"payer": PAYER})
    assert (page.status_code, "商户协议状态不正常" in page.text) == (409, True)
    refused = await sandbox.control("POST", f"/agreements/{second}/sign", {"payer": PAYER}, status=409)
    assert refused["error"]["code"] == "MERCHANT_STATUS_IS_NOT_NORMAL"
    assert (await truth(sandbox, second))["status"] == "OFFERED"

    await sign(sandbox, elsewhere, payer=PAYER)
    await sandbox.control("POST", f"/agreements/{first}/unsign", {})
    assert (await sign(sandbox, second, payer=PAYER))["agreement"]["payer"] == PAYER


async def test_another_merchants_agreement_of_the_scene_is_no_hindrance(
    sandbox: SandboxHandle, alipay: AlipayClient, certificate_alipay: AlipayClient
) -> None:
    number = agreement_number()
    await alipay.signing_page(number)
    await certificate_alipay.signing_page(number)
    sellers = [client.account["seller_id"] for client in (alipay, certificate_alipay)]
    unclear = await sandbox.control("POST", f"/agreements/{number}/sign", {}, status=409)
    assert unclear["error"]["code"] == "AGREEMENT_AMBIGUOUS"
    for seller_id in sellers:
        await sandbox.control("POST", f"/agreements/{number}/sign?seller_id={seller_id}", {"payer": PAYER})
    agreements = (await sandbox.control("GET", f"/agreements?payer={PAYER}"))["agreements"]
    assert [agreement["seller_id"] for agreement in agreements] == sellers
    foreign = {"agreement_no": agreements[1]["agreement_no"]}
    assert await alipay.refused(QUERY, foreign) == "USER_AGREEMENT_NOT_EXIST"


async def test_each_merchant_account_is_a_payer_of_its_own(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    one, again, nobody = (
        await signed(sandbox, alipay, external_logon_id="a"),
        await signed(sandbox, alipay, external_logon_id="a", sign_scene="INDUSTRY|TV"),
        await signed(sandbox, alipay, external_logon_id=None),
    )
    assert one["payer"] == again["payer"] != nobody["payer"] == "2088720000000088"
    assert (len(one["payer"]), one["payer"][:4]) == (16, "2088")


async def test_a_link_can_be_opened_again_until_it_is_used(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = agreement_number()
    url = await alipay.signing_page(number)
    assert await alipay.signing_page(number) == url
    changed = agreement_terms(number, period_rule_params=weekly(single_amount="31.00"))
    assert "参数与上次不一致" in await page_error(alipay, changed)
    await sign(sandbox, number)
    assert "已签约过" in await page_error(alipay, agreement_terms(number))
    again = await alipay.http.post(f"{url}/sign")
    assert (again.status_code, "已签约过" in again.text) == (409, True)
    assert len((await sandbox.control("GET", "/agreements"))["agreements"]) == 1


async def test_a_link_ends_with_its_effect_time(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = agreement_number()
    link = alipay.link(SIGN, agreement_terms(number, effect_time=3600))
    await sandbox.advance(3000)
    response = await alipay.http.get(link)
    assert response.status_code == 302, "older than ten minutes, but not over"
    await sandbox.advance(700)
    assert "已过期" in (await alipay.http.get(link)).content.decode("gbk")
    refused = await sandbox.control("POST", f"/agreements/{number}/sign", {}, status=409)
    assert refused["error"]["code"] == "ILLEGAL_PARAMS"
    assert (await truth(sandbox, number))["status"] == "OFFERED"


async def test_a_cancelled_signing_leaves_nothing(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = agreement_number()
    url = await alipay.signing_page(number, notify_url=merchant.notify_url, return_url=DONE)
    answer = await alipay.http.post(f"{url}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, DONE)
    assert ((await truth(sandbox, number))["status"], merchant.received) == ("OFFERED", [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"access_params": None}, "系统异常：缺少 access_params"),
        ({"access_params": {"channel": "FAX"}}, "商户请求数据错误"),
        ({"sign_scene": None}, "系统异常，签约失败，商户请求数据错误"),
        ({"sign_scene": "DEFAULT|DEFAULT"}, "商户请求数据错误"),
        ({"period_rule_params": None}, "商户请求数据错误"),
        ({"period_rule_params": weekly(period=None)}, "商户请求数据错误"),
        ({"period_rule_params": weekly(period="6")}, "最短 7 天"),
        ({"period_rule_params": weekly(execute_time="2026-1-05")}, "yyyy-MM-dd"),
        ({"period_rule_params": weekly(execute_time=day(after=-2))}, "不能早于今天"),
        ({"period_rule_params": weekly(period_type="MONTH", execute_time="2099-01-29")}, "1 到 28"),
        ({"period_rule_params": weekly(period_type="YEAR")}, "商户请求数据错误"),
        ({"period_rule_params": weekly(single_amount=None)}, "商户请求数据错误"),
        ({"period_rule_params": weekly(sum="1")}, "商户请求数据错误"),
        ({"external_agreement_no": "has_underscore"}, "商户请求数据错误"),
        ({"external_agreement_no": "X" * 33}, "超过最大长度 32"),
        ({"sign_validity_period": "2y"}, "商户请求数据错误"),
        ({"effect_time": "0"}, "商户请求数据错误"),
        ({"sign_notify_url": "http://127.0.0.1/x"}, "商户请求数据错误"),
        ({"product_code": "GENERAL_WITHHOLDING", "personal_product_code": "CYCLE_PAY"}, "商户请求数据错误"),
        ({"product_code": None, "personal_product_code": "GENERAL_WITHHOLDING_P"}, "商户协议不存在"),
        ({"product_code": "CYCLE_PAY_AUTH", "personal_product_code": "GENERAL_WITHHOLDING_P"}, "商户协议不存在"),
    ],
)
async def test_a_wrong_request_is_told_to_the_payer(
    sandbox: SandboxHandle, alipay: AlipayClient, changes: dict[str, object], words: str
) -> None:
    assert words in await page_error(alipay, agreement_terms(agreement_number(), **changes))
    assert (await sandbox.control("GET", "/agreements"))["agreements"] == []


async def test_nested_parameters_as_texts_lead_nowhere(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = agreement_number()
    for name in ("access_params", "period_rule_params"):
        terms = agreement_terms(number)
        await page_error(alipay, terms | {name: json.dumps(terms[name])}, status=404)
    assert (await sandbox.control("GET", "/agreements"))["agreements"] == []


async def test_general_withholding_needs_no_plan(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    products = {"personal_product_code": "GENERAL_WITHHOLDING_P", "product_code": "GENERAL_WITHHOLDING"}
    agreement = await signed(sandbox, alipay, **products, period_rule_params=None)
    answer = await alipay.succeed(QUERY, {"agreement_no": agreement["agreement_no"]})
    assert {"next_deduct_time", "execution_plans", "single_quota"} & answer.keys() == set()
    refused = await alipay.refused(MODIFY, {"agreement_no": agreement["agreement_no"], "deduct_time": day(after=9)})
    assert refused == "ILLEGAL_AGREEMENT"


# The end.


async def test_the_merchant_unsigns_and_hears_of_it(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    await set_gateway(sandbox, alipay, merchant)
    agreement = await signed(sandbox, alipay)
    answer = await alipay.succeed(UNSIGN, by_number(agreement), notify_url=merchant.notify_url)
    assert answer == {"code": "10000", "msg": "Success"}
    signing, unsigning = await merchant.wait_for(2)
    assert (signing.target, unsigning.target) == ("/app-gateway", "/notify")
    fields = alipay.read_notification(unsigning.body)
    ended = await truth(sandbox, agreement["external_agreement_no"])
    assert ended["status"] == "UNSIGNED"
    for name in ("sign", "notify_time", "notify_id"):
        fields.pop(name)
    assert fields.pop("unsign_time")
    assert fields == {
        "notify_type": "dut_user_unsign",
        "status": "UNSIGN",
        "app_id": alipay.account["app_id"],
        "auth_app_id": alipay.account["app_id"],
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "agreement_no": agreement["agreement_no"],
        "external_agreement_no": agreement["external_agreement_no"],
        "personal_product_code": "CYCLE_PAY_AUTH_P",
        "sign_scene": SCENE,
        "alipay_user_id": agreement["payer"],
        "alipay_logon_id": f"{agreement['payer'][-3:]}***@sandbox.com",
    }
    assert await alipay.refused(UNSIGN, by_number(agreement)) == "USER_AGREEMENT_STATUS_NOT_NORMAL"
    assert len(merchant.received) == 2


async def test_an_unsigning_payer_is_told_to_the_app_gateway_only(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number, unheard = agreement_number(), agreement_number()
    for each in (number, unheard):
        await alipay.signing_page(each, notify_url=merchant.notify_url)
        await sign(sandbox, each, notify=False)
    answer = await sandbox.control("POST", f"/agreements/{unheard}/unsign", {})
    assert (answer["agreement"]["status"], answer["notifications"], merchant.received) == ("UNSIGNED", [], [])

    await set_gateway(sandbox, alipay, merchant)
    page = await alipay.http.post(f"{(await truth(sandbox, number))['sign_url']}/unsign")
    assert page.status_code == 303
    (received,) = await merchant.wait_for(1)
    assert received.target == "/app-gateway"
    assert alipay.read_notification(received.body)["notify_type"] == "dut_user_unsign"


async def test_an_agreement_ends_silently_with_its_validity(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    await set_gateway(sandbox, alipay, merchant)
    agreement = await signed(sandbox, alipay, sign_validity_period="1m", external_logon_id="a")
    by_button = await signed(sandbox, alipay)
    await sandbox.advance(31 * 86400)
    answer = await alipay.succeed(QUERY, {"agreement_no": agreement["agreement_no"]})
    assert (answer["status"], "next_deduct_time" in answer) == ("STOP", False)
    ended = await truth(sandbox, agreement["external_agreement_no"])
    assert (ended["status"], ended["ended_at"]) == ("EXPIRED", ended["valid_until"])
    page = await alipay.http.post(f"{by_button['sign_url']}/expire")
    assert page.status_code == 303
    assert (await truth(sandbox, by_button["external_agreement_no"]))["status"] == "EXPIRED"
    await sandbox.control("POST", f"/agreements/{by_button['external_agreement_no']}/expire", {}, status=409)
    assert len(merchant.received) == 2, "of signing"
    await signed(sandbox, alipay, external_logon_id="a")


@pytest.mark.parametrize("ended_as", ["USER_AGREEMENT_NOT_EXIST", "AGREEMENT_HAS_UNSIGNED"])
async def test_a_query_may_answer_with_an_error_once_it_is_over(
    sandbox: SandboxHandle, alipay: AlipayClient, ended_as: str
) -> None:
    agreement = await signed(sandbox, alipay)
    await alipay.succeed(UNSIGN, {"agreement_no": agreement["agreement_no"]})
    assert (await alipay.succeed(QUERY, by_number(agreement)))["status"] == "STOP"
    await sandbox.control("POST", "/alipay/agreements/policy", {"ended_as": ended_as})
    assert await alipay.refused(QUERY, by_number(agreement)) == ended_as


# The plan.


async def test_a_plan_can_only_be_put_off(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay)

    def to(deduct_time: str) -> dict[str, object]:
        return {"agreement_no": agreement["agreement_no"], "deduct_time": deduct_time, "memo": "客户要求"}

    assert await alipay.refused(MODIFY, to(day())) == "ILLEGAL_EXECUTION_TIME"
    assert await alipay.refused(MODIFY, to(day(after=-1))) == "ILLEGAL_EXECUTION_TIME"
    assert await alipay.refused(MODIFY, to("20270101")) == "INVALID_PARAMETER"
    assert await alipay.refused(MODIFY, to(day(after=3)) | {"agreement_no": "1"}) == "ILLEGAL_AGREEMENT"
    later = day(after=3)
    answer = await alipay.succeed(MODIFY, to(later))
    assert (answer["agreement_no"], answer["deduct_time"]) == (agreement["agreement_no"], later)
    changed = await truth(sandbox, agreement["external_agreement_no"])
    assert (changed["next_deduction_on"], changed["modifications"]) == (later, 1)

    await sandbox.control("POST", "/alipay/agreements/policy", {"max_modifications": 1})
    assert await alipay.refused(MODIFY, to(day(after=4))) == "ILLEGAL_EXECUTION_TIME"
    policy = (await sandbox.control("POST", "/alipay/agreements/policy", {"max_modifications": None}))["policy"]
    assert policy == {"window_days": 5, "max_modifications": None, "ended_as": "STOP", "signed_by": "V1"}
    await alipay.succeed(MODIFY, to(day(after=4)))
    await alipay.succeed(UNSIGN, {"agreement_no": agreement["agreement_no"]})
    assert await alipay.refused(MODIFY, to(day(after=5))) == "ILLEGAL_AGREEMENT"


async def test_a_monthly_plan_stays_within_28_days(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    rule = weekly(period_type="MONTH", period="1", execute_time="2098-12-28")
    agreement = await signed(sandbox, alipay, period_rule_params=rule)
    wrong = {"agreement_no": agreement["agreement_no"], "deduct_time": "2098-12-29"}
    assert await alipay.refused(MODIFY, wrong) == "ILLEGAL_EXECUTION_TIME"
    await alipay.succeed(MODIFY, wrong | {"deduct_time": "2099-01-01"})


# Paying with signing.


def pay_and_sign(alipay: AlipayClient, number: str, agreement: str, **params: object) -> dict[str, object]:
    order = alipay.order(number, product="app", product_code="CYCLE_PAY_AUTH")
    return order | {"agreement_sign_params": agreement_terms(agreement, **params)}


async def offered(alipay: AlipayClient, order: dict[str, object], **common: str) -> str:
    """The page of a payment with signing."""
    response = await alipay.http.get(alipay.link("alipay.trade.app.pay", order, **common))
    assert response.status_code == 302, response.content.decode("gbk")
    return alipay.account["gateway"].removesuffix("/gateway.do") + response.headers["location"]


async def test_paying_signs_as_well_and_each_has_its_notice(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number, external = new_number(), agreement_number()
    sign_url = f"{merchant.base_url}/signed"
    order = pay_and_sign(alipay, number, external, sign_notify_url=sign_url)
    page = await offered(alipay, order, notify_url=merchant.notify_url, return_url=DONE)
    shown = await alipay.http.get(page)
    for text in ("支付并签约", "每 7 天", external, 'name="sign" value="yes" checked'):
        assert text in shown.text
    form = {"sign": ["no", "yes"], "buyer": PAYER}
    answer = await alipay.http.post(f"{page}/pay", data=form)
    assert (answer.status_code, answer.headers["location"].startswith(f"{DONE}?app_id=")) == (303, True)
    notices = {received.target: alipay.read_notification(received.body) for received in await merchant.wait_for(2)}
    assert notices["/notify"]["trade_status"] == "TRADE_SUCCESS"
    assert (notices["/notify"]["buyer_id"], "agreement_no" in notices["/notify"]) == (PAYER, False)
    assert notices["/signed"]["notify_type"] == "dut_user_sign"
    agreement = await truth(sandbox, external)
    assert (agreement["status"], agreement["payer"], agreement["out_trade_no"]) == ("NORMAL", PAYER, number)
    assert (agreement["deductions"], agreement["next_deduction_on"]) == ([], day()), "outside the plan"
    assert (await alipay.query(number))["buyer_user_id"] == PAYER
    assert urlsplit(agreement["sign_url"]).path in (await alipay.http.get(page)).text


async def test_signing_with_a_payment_falls_back_to_its_notify_url(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number, external = new_number(), agreement_number()
    await offered(alipay, pay_and_sign(alipay, number, external), notify_url=merchant.notify_url)
    notices = await sandbox.pay(number)
    assert [notice["summary"].get("notify_type", "trade") for notice in notices] == ["trade", "dut_user_sign"]
    assert [received.target for received in merchant.received] == ["/notify", "/notify"]


async def test_the_payer_may_pay_and_not_sign(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number, external = new_number(), agreement_number()
    page = await offered(alipay, pay_and_sign(alipay, number, external), notify_url=merchant.notify_url)
    await alipay.http.post(f"{page}/pay", data={"sign": "no"})
    await merchant.wait_for(1)
    assert (await sandbox.trade(number))["status"] == "PAID"
    unsigned = await truth(sandbox, external)
    assert unsigned["status"] == "OFFERED"
    assert await alipay.refused(QUERY, by_number(unsigned)) == "USER_AGREEMENT_NOT_EXIST"
    by_control, other = new_number(), agreement_number()
    await offered(alipay, pay_and_sign(alipay, by_control, other), notify_url=merchant.notify_url)
    assert len(await sandbox.pay(by_control, sign=False)) == 1
    assert (await truth(sandbox, other))["status"] == "OFFERED"


async def test_a_payer_who_signed_already_pays_all_the_same(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await signed(sandbox, alipay, external_logon_id="a")
    number, external = new_number(), agreement_number()
    await offered(alipay, pay_and_sign(alipay, number, external, external_logon_id="a"))
    await sandbox.pay(number)
    assert (await sandbox.trade(number))["status"] == "PAID"
    assert (await truth(sandbox, external))["status"] == "OFFERED"


async def test_an_order_with_signing_is_resumed_and_guarded(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number, external = new_number(), agreement_number()
    order = pay_and_sign(alipay, number, external)
    page = await offered(alipay, order)
    assert await offered(alipay, order) == page
    other = pay_and_sign(alipay, number, external, external_logon_id="b")
    assert "参数与上次不一致" in await page_error(alipay, other, method="alipay.trade.app.pay")
    await sandbox.pay(number)
    assert "交易已被支付" in await page_error(alipay, order, method="alipay.trade.app.pay")
    without_params = {name: value for name, value in order.items() if name != "agreement_sign_params"}
    assert "agreement_sign_params" in await page_error(alipay, without_params, method="alipay.trade.app.pay")


# Deep links.


async def follow(sandbox: SandboxHandle, link: str) -> tuple[int, str]:
    response = await sandbox.http.get(f"{sandbox.base_url}/alipay/app?link={quote(link, safe='')}")
    if response.status_code != 302:
        return response.status_code, ""
    landed = await sandbox.http.get(sandbox.base_url + response.headers["location"], follow_redirects=True)
    return landed.status_code, landed.url.path


async def test_deep_links_lead_where_the_app_would_go(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    terms = agreement_terms(agreement_number(), external_logon_id="小 明&=+%")
    call, url = alipay.order_string(SIGN, terms), alipay.link(SIGN, agreement_terms(agreement_number()))
    order = pay_and_sign(alipay, new_number(), agreement_number())
    paying = alipay.order_string("alipay.trade.app.pay", order)
    created = await alipay.succeed("alipay.trade.precreate", alipay.order(new_number(), product="qr"))
    start = "alipays://platformapi/startapp"
    links = {
        f"{start}?appId=60000157&appClearTop=false&sign_params={quote(call, safe='')}": "/alipay/sign/",
        f"{start}?appId=60000157&orderStr={quote(paying, safe='')}": "/alipay/pay/",
        f"{start}?appId=20000067&url={quote(url, safe='')}": "/alipay/sign/",
        f"{start}?saId=10000007&qrcode={quote(created['qr_code'], safe='')}": "/alipay/pay/",
    }
    for link, path in links.items():
        status, landed = await follow(sandbox, link)
        assert (status, landed.startswith(path)) == (200, True), link
    signing = await sandbox.control("GET", f"/agreements?external_agreement_no={terms['external_agreement_no']}")
    assert signing["agreements"][0]["external_logon_id"] == "小 明&=+%"


@pytest.mark.parametrize(
    "link",
    [
        "",
        "https://example.com/",
        "alipays://platformapi/startapp?appId=1",
        "alipays://platformapi/startapp?appId=20000067&url=https%3A%2F%2Fexample.com%2Fgateway.do",
        "alipays://platformapi/startapp?appId=20000067&url=javascript%3Aalert(1)",
    ],
)
async def test_other_links_lead_nowhere(sandbox: SandboxHandle, link: str) -> None:
    assert await follow(sandbox, link) == (400, "")


# Notices: rules, repeats, vectors.


async def test_notices_may_be_signed_with_their_sign_type(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    await sandbox.control("POST", "/alipay/agreements/policy", {"signed_by": "V2"})
    number = agreement_number()
    await alipay.signing_page(number, notify_url=merchant.notify_url)
    await sign(sandbox, number, times=2)
    first, copy = merchant.received
    assert first.body == copy.body
    fields = dict(parse_qsl(first.body.decode()))
    key = alipay.account["alipay_public_key"]
    assert is_signed(key, without(fields, "sign").encode(), fields["sign"])
    assert not is_signed(key, without(fields, "sign", "sign_type").encode(), fields["sign"])


async def test_an_unacknowledged_sign_notice_is_repeated_like_any(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    merchant.answers = [(500, b"")]
    number = agreement_number()
    await alipay.signing_page(number, notify_url=merchant.notify_url)
    (notice,) = (await sign(sandbox, number))["notifications"]
    assert (notice["state"], notice["out_trade_no"]) == ("WAITING", number)
    await sandbox.advance(239)
    assert len(merchant.received) == 1
    await sandbox.advance(2)
    first, second = (alipay.read_notification(received.body) for received in merchant.received)
    assert (first["notify_id"], first["sign_time"]) == (second["notify_id"], second["sign_time"])
    assert first["notify_time"] < second["notify_time"]


@pytest.mark.skipif(not VECTORS.exists(), reason=f"{VECTORS} is not there")
async def test_notices_have_the_fields_of_the_derived_vectors(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    cases = {case["name"]: case for case in json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]}
    agreement = agreement_number()
    await alipay.signing_page(agreement, biz={"external_logon_id": None}, notify_url=merchant.notify_url)
    await sign(sandbox, agreement)
    await alipay.succeed(UNSIGN, by_number(await truth(sandbox, agreement)), notify_url=merchant.notify_url)
    for received, name in zip(await merchant.wait_for(2), ("agreement_sign_v1", "agreement_unsign_v1"), strict=True):
        fields, wanted = alipay.read_notification(received.body), cases[name]["params"]
        assert fields.keys() == wanted.keys()
        for key in ("notify_type", "status", "sign_type", "version", "personal_product_code", "sign_scene"):
            assert fields[key] == wanted[key]
        own = [part.split("=")[0] for part in without(fields, "sign", "sign_type").split("&")]
        assert own == [part.split("=")[0] for part in cases[name]["string_to_verify"].split("&")]


# /_control and the index page.


async def test_faults_and_counts_know_agreements_by_their_numbers(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay)
    number, theirs = agreement["external_agreement_no"], agreement["agreement_no"]
    fault = {"method": QUERY, "kind": "business_error", "sub_code": "SYSTEM_ERROR", "out_trade_no": number}
    await sandbox.control("POST", "/faults", fault, status=201)
    await alipay.succeed(QUERY, {"agreement_no": theirs})
    assert await alipay.refused(QUERY, by_number(agreement)) == "SYSTEM_ERROR"
    await alipay.succeed(QUERY, by_number(agreement))
    assert (await sandbox.calls(QUERY, number), await sandbox.calls(QUERY, theirs)) == (2, 1)
    assert await sandbox.calls(SIGN, number) == 1


async def test_an_unsign_whose_answer_was_lost_has_happened(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    agreement = await signed(sandbox, alipay)
    await sandbox.control("POST", "/faults", {"method": UNSIGN, "kind": "lost_reply"}, status=201)
    parameters = alipay.signed(UNSIGN, by_number(agreement), changes={"notify_url": merchant.notify_url})
    with pytest.raises(Exception, match=r"disconnected|reset"):
        await alipay.send(parameters)
    await merchant.wait_for(1)
    assert (await truth(sandbox, agreement["external_agreement_no"]))["status"] == "UNSIGNED"


async def test_the_index_lists_agreements(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    assert "<h2>协议</h2>" not in (await sandbox.http.get(sandbox.base_url)).text
    agreement = await signed(sandbox, alipay, external_logon_id="<b>小明</b>")
    page = (await sandbox.http.get(sandbox.base_url)).text
    for text in (
        agreement["external_agreement_no"],
        "已签约，生效中",
        "&lt;b&gt;小明",
        urlsplit(agreement["sign_url"]).path,
    ):
        assert text in page
    assert "<b>小明" not in page
    shown = await sandbox.http.get(agreement["sign_url"])
    assert all(f'/{action}" class="choice"' in shown.text for action in ("unsign", "expire"))


async def test_a_reset_forgets_agreements_policies_and_gateways(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await signed(sandbox, alipay)
    await sandbox.control("POST", "/alipay/agreements/policy", {"window_days": 1, "signed_by": "V2"})
    app = f"/alipay/apps/{alipay.account['app_id']}"
    await sandbox.control("POST", app, {"app_gateway": "http://127.0.0.1:1/"})
    await sandbox.control("POST", "/reset")
    assert (await sandbox.control("GET", "/agreements"))["agreements"] == []
    policy = (await sandbox.control("GET", "/alipay/agreements/policy"))["policy"]
    assert (policy["window_days"], policy["signed_by"]) == (5, "V1")
    assert (await sandbox.control("GET", app))["app_gateway"] is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/agreements/none/sign", {}, 404),
        ("/alipay/apps/none", {"app_gateway": None}, 404),
        ("/alipay/apps/9021000100000001", {"app_gateway": "ftp://x"}, 400),
        ("/alipay/apps/9021000100000001", {}, 400),
        ("/alipay/agreements/policy", {"window_days": -1}, 400),
        ("/alipay/agreements/policy", {"ended_as": "GONE"}, 400),
        ("/alipay/agreements/policy", {"signed_by": "V3"}, 400),
    ],
)
async def test_a_wrong_order_says_so(sandbox: SandboxHandle, path: str, body: dict[str, object], status: int) -> None:
    assert "error" in await sandbox.control("POST", path, body, status=status)


async def test_the_control_shows_everything_about_an_agreement(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    rule = weekly(total_amount="100.00", total_payments="3")
    agreement = await signed(sandbox, alipay, period_rule_params=rule)
    for name in ("created_at", "link_expires_at", "signed_at"):
        assert agreement.pop(name)
    assert agreement.pop("sign_url").startswith(f"{sandbox.base_url}/alipay/sign/")
    number, payer = agreement.pop("external_agreement_no"), agreement.pop("payer")
    assert len(agreement.pop("agreement_no")) == 20
    assert (payer[:6], agreement.pop("external_logon_id")) == ("208822", f"user-{number}")
    assert agreement == {
        "provider": "ALIPAY",
        "app_id": alipay.account["app_id"],
        "auth_app_id": alipay.account["app_id"],
        "seller_id": alipay.account["seller_id"],
        "out_trade_no": None,
        "status": "NORMAL",
        "scene": SCENE,
        "personal_product_code": "CYCLE_PAY_AUTH_P",
        "product_code": "CYCLE_PAY_AUTH",
        "period_type": "DAY",
        "period": 7,
        "first_deduction_on": day(),
        "next_deduction_on": day(),
        "single_amount": "30.00",
        "single_amount_fen": 3000,
        "total_amount_fen": 10000,
        "total_payments": 3,
        "deducted_fen": 0,
        "deductions": [],
        "under_way": None,
        "modifications": 0,
        "notify_url": None,
        "return_url": None,
        "valid_until": None,
        "ended_at": None,
        "notify_ids": [],
    }
