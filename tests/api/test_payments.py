"""Payments over the API: what comes back, who may do what, and what an amount may look like."""

import json
from typing import Any

import pytest

from app.cycles.actions import StartCyclePayment
from tests.api.conftest import CREATE, Api
from tests.fixtures.shop import BUYER

EVERYTHING = """
mutation Create($input: CreatePaymentInput!) {
  createPayment(input: $input) {
    id orderId method amount paidAmount refundedAmount subject outTradeNo transactionId status final checking
    failure { code providerCode providerMessage explanation explanationZh }
    action { __typename ... on Redirect { url html } ... on QrCode { codeUrl } }
    refunds { id } order { id data payments { id } } createdAt updatedAt paidAt expiresAt version
  }
}
"""


def created_input(order_id: object, **changes: Any) -> dict[str, Any]:
    return {"input": {"orderId": str(order_id), "method": "ALIPAY_PAGE", "subject": "Tea"} | changes}


async def test_owner_creates_a_payment(api: Api) -> None:
    order_id = await api.shop.order()
    answer = await api.post(EVERYTHING, created_input(order_id, amount="12.30"))
    assert "errors" not in answer, answer
    payment = answer["data"]["createPayment"]
    assert (payment["orderId"], payment["amount"], payment["status"]) == (str(order_id), "12.30", "PENDING")
    assert (payment["final"], payment["checking"], payment["version"]) == (False, False, 2)
    assert (payment["paidAmount"], payment["refundedAmount"], payment["refunds"]) == (None, "0.00", [])
    assert (payment["transactionId"], payment["failure"], payment["paidAt"]) == (None, None, None)
    assert payment["outTradeNo"].startswith("SY")
    assert payment["order"]["id"] == str(order_id)
    assert payment["order"]["data"]["title"] == "Tea"
    assert payment["order"]["payments"] == [{"id": payment["id"]}]
    assert payment["action"]["__typename"] == "Redirect"
    assert "sign=" in payment["action"]["url"]
    assert payment["action"]["html"].startswith('<form method="get"')
    assert await api.shop.count("payment") == 1
    read = await api.post("query ($id: ID!) { payment(id: $id) { id version } }", {"id": payment["id"]})
    assert read == {"data": {"payment": {"id": payment["id"], "version": 2}}}


async def test_same_key_gives_the_first_answer_and_another_input_a_conflict(api: Api) -> None:
    order_id = await api.shop.order()
    first = await api.post(CREATE, created_input(order_id, idempotencyKey="k"))
    assert await api.post(CREATE, created_input(order_id, idempotencyKey="k")) == first
    refused = await api.error(CREATE, created_input(order_id, idempotencyKey="k", subject="Coffee"))
    assert refused["code"] == "IDEMPOTENCY_CONFLICT"
    assert await api.shop.count("payment") == 1


# The documented answer for each way to write an amount: Z8 asks for more than 0.01, the minimum is a setting (0.02).
REFUSED_AMOUNTS: list[tuple[object, str]] = [
    ("0", "INVALID_AMOUNT"),
    ("0.00", "INVALID_AMOUNT"),
    ("0.01", "INVALID_AMOUNT"),
    ("0.001", "INVALID_AMOUNT"),
    ("12.300", "INVALID_AMOUNT"),
    ("-1", "INVALID_AMOUNT"),
    ("-0.01", "INVALID_AMOUNT"),
    ("+1", "INVALID_AMOUNT"),
    ("NaN", "INVALID_AMOUNT"),
    ("Infinity", "INVALID_AMOUNT"),
    ("1e5", "INVALID_AMOUNT"),
    ("１２.３０", "INVALID_AMOUNT"),
    ("12,30", "INVALID_AMOUNT"),
    ("1,000.00", "INVALID_AMOUNT"),
    (" 12.30", "INVALID_AMOUNT"),
    ("12.30\n", "INVALID_AMOUNT"),
    ("¥12.30", "INVALID_AMOUNT"),
    ("012.30", "INVALID_AMOUNT"),
    (".5", "INVALID_AMOUNT"),
    ("12.", "INVALID_AMOUNT"),
    ("", "INVALID_AMOUNT"),
    ("1000000000000", "INVALID_AMOUNT"),
    ("9" * 400, "INVALID_AMOUNT"),
    (12.3, "INVALID_AMOUNT"),
    (12, "INVALID_AMOUNT"),
    (True, "INVALID_AMOUNT"),
    (["12.30"], "INVALID_AMOUNT"),
    ({"yuan": "12.30"}, "INVALID_AMOUNT"),
    ("12.31", "AMOUNT_MISMATCH"),
    ("1.00", "AMOUNT_MISMATCH"),
]


@pytest.mark.parametrize(("amount", "code"), REFUSED_AMOUNTS, ids=lambda value: json.dumps(value)[:24])
async def test_amount_in_variables(shared_api: Api, amount: object, code: str) -> None:
    order_id = await shared_api.shop.order(amount="12.30")
    refused = await shared_api.error(CREATE, created_input(order_id, amount=amount))
    assert (refused["code"], refused["field"]) == (code, "amount")
    assert refused["messageZh"]
    assert await shared_api.payments_of(order_id) == 0


@pytest.mark.parametrize(
    "literal", ["12.30", "12", "1e5", "true", "NaN", "[12.30]", '{ yuan: "1" }', '"1e5"', '"0.001"']
)
async def test_amount_as_a_literal(shared_api: Api, literal: str) -> None:
    order_id = await shared_api.shop.order(amount="12.30")
    written = '{ createPayment(input: { orderId: "%s", method: ALIPAY_PAGE, subject: "Tea", amount: %s }) { id } }'
    refused = await shared_api.error("mutation " + written % (order_id, literal))
    assert (refused["code"], refused["field"]) == ("INVALID_AMOUNT", "amount")
    assert await shared_api.payments_of(order_id) == 0


@pytest.mark.parametrize(("amount", "kept"), [("12.30", "12.30"), ("12.3", "12.30"), (None, "12.30")])
async def test_amount_that_is_the_orders_is_taken(api: Api, amount: str | None, kept: str) -> None:
    order_id = await api.shop.order(amount="12.30")
    answer = await api.post(CREATE, created_input(order_id, amount=amount))
    assert answer["data"]["createPayment"]["amount"] == kept


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"orderId": "abc"}, "INVALID_INPUT", "orderId"),
        ({"orderId": "99999999999999999999"}, "INVALID_INPUT", "orderId"),
        ({"orderId": "1.0"}, "INVALID_INPUT", "orderId"),
        ({"orderId": "１"}, "INVALID_INPUT", "orderId"),
        ({"orderId": "123456"}, "ORDER_NOT_FOUND", "orderId"),
        ({"orderId": 1.5}, "INVALID_INPUT", "orderId"),
        ({"orderId": None}, "INVALID_INPUT", "orderId"),
        ({"method": "CASH"}, "INVALID_INPUT", "method"),
        ({"method": "WECHAT_NATIVE"}, "METHOD_NOT_CONFIGURED", "method"),
        ({"method": "HUIFU_ALIPAY_QR"}, "METHOD_NOT_CONFIGURED", "method"),
        ({"subject": ""}, "INVALID_INPUT", "subject"),
        ({"subject": 5}, "INVALID_INPUT", "subject"),
        ({"merchantAccountId": "x"}, "INVALID_INPUT", "merchantAccountId"),
        ({"expiresInSeconds": 2**40}, "INVALID_INPUT", "expiresInSeconds"),
        ({"expiresInSeconds": -1}, "INVALID_INPUT", "expiresInSeconds"),
        ({"idempotencyKey": ""}, "INVALID_INPUT", "idempotencyKey"),
        ({"unknown": 1}, "INVALID_INPUT", "input"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
async def test_refused_inputs_name_the_field(shared_api: Api, changes: dict[str, Any], code: str, field: str) -> None:
    order_id = await shared_api.shop.order()
    refused = await shared_api.error(CREATE, created_input(order_id, **changes))
    assert (refused["code"], refused.get("field")) == (code, field)
    assert await shared_api.payments_of(order_id) == 0


async def test_missing_input_is_named(shared_api: Api) -> None:
    refused = await shared_api.error(CREATE, {})
    assert (refused["code"], refused["messageZh"]) == ("INVALID_INPUT", "输入不正确")


# --- who may do what --------------------------------------------------------------------------------------------------

CALLERS = ["anonymous", "owner", "stranger", "admin", "expired"]
# What each caller gets: "data" when it is served, else the code; `null` is how a query hides what is not yours.
OPERATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "createPayment": (
        'mutation { createPayment(input: {orderId: "$order", method: ALIPAY_PAGE, subject: "Tea"}) { id } }',
        {"owner": "data", "stranger": "ORDER_NOT_FOUND", "admin": "data"},
    ),
    "syncPayment": (
        'mutation { syncPayment(id: "$payment") { id } }',
        {"owner": "PROVIDER_UNAVAILABLE", "stranger": "NOT_FOUND", "admin": "PROVIDER_UNAVAILABLE"},
    ),
    "closePayment": (
        'mutation { closePayment(id: "$payment") { id } }',
        {"owner": "PROVIDER_UNAVAILABLE", "stranger": "NOT_FOUND", "admin": "PROVIDER_UNAVAILABLE"},
    ),
    "payment": ('{ payment(id: "$payment") { id } }', {"owner": "data", "stranger": "null", "admin": "data"}),
    "payments": ('{ payments(orderId: "$order") { id } }', {"owner": "data", "stranger": "[]", "admin": "data"}),
    "order": ('{ order(id: "$order") { id } }', {"owner": "data", "stranger": "null", "admin": "data"}),
    "paymentFeature": ("{ paymentFeature { active } }", {"owner": "data", "stranger": "data", "admin": "data"}),
    "startCyclePayment": (
        'mutation { startCyclePayment(input: {orderId: "$order", price: "12.30", subject: "Tea", intervalDays: 7,'
        ' scene: "INDUSTRY|EDU"}) { id } }',
        {"owner": "data", "stranger": "ORDER_NOT_FOUND", "admin": "SCENE_ALREADY_SIGNED"},
    ),
    "cyclePayment": ('{ cyclePayment(id: "$cycle") { id } }', {"owner": "data", "stranger": "null", "admin": "data"}),
    "myCyclePayments": (
        "{ myCyclePayments { id orderId } } # $cycle",
        {"owner": "data", "stranger": "[]", "admin": "[]"},
    ),
    "cancelCyclePayment": (
        'mutation { cancelCyclePayment(id: "$cycle") { id } }',
        {"owner": "data", "stranger": "NOT_FOUND", "admin": "data"},
    ),
    "pauseCyclePayment": (
        'mutation { pauseCyclePayment(id: "$cycle") { id } }',
        {"owner": "CYCLE_NOT_CHANGEABLE", "stranger": "NOT_FOUND", "admin": "CYCLE_NOT_CHANGEABLE"},
    ),
    "resumeCyclePayment": (
        'mutation { resumeCyclePayment(id: "$cycle") { id } }',
        {"owner": "CYCLE_NOT_CHANGEABLE", "stranger": "NOT_FOUND", "admin": "CYCLE_NOT_CHANGEABLE"},
    ),
    "changeCyclePrice": (
        'mutation { changeCyclePrice(id: "$cycle", price: "9.90") { id } }',
        {"owner": "FORBIDDEN", "stranger": "NOT_FOUND", "admin": "CYCLE_NOT_CHANGEABLE"},
    ),
    "changeCycleDate": (
        'mutation { changeCycleDate(id: "$cycle", nextDeductionOn: "2099-01-01") { id } }',
        {"owner": "FORBIDDEN", "stranger": "NOT_FOUND", "admin": "CYCLE_NOT_CHANGEABLE"},
    ),
    "syncCyclePayment": (
        'mutation { syncCyclePayment(id: "$cycle") { id } }',
        {"owner": "PROVIDER_UNAVAILABLE", "stranger": "NOT_FOUND", "admin": "PROVIDER_UNAVAILABLE"},
    ),
    "clock": ("{ clock { movable } }", {"owner": "data", "stranger": "data", "admin": "data"}),
    # There is a test clock in sandbox deployments only: tests/test_test_clock.py.
    "advanceClock": (
        'mutation { advanceClock(to: "2099-01-01T00:00:00Z") { now } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "FORBIDDEN"},
    ),
    "merchantAccounts": (
        "{ merchantAccounts { id } }",
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "data"},
    ),
    "explainWechatError": (
        '{ explainWechatError(message: "?") { explanation } }',
        {"anonymous": "null", "owner": "null", "stranger": "null", "admin": "null"},
    ),
    "wechatApps": ("{ wechatApps { appId } }", {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "[]"}),
    "wechatLogin": (
        'mutation { wechatLogin(code: "c", appId: "wx0000000000000000") { token } }',
        {"anonymous": "INVALID_INPUT", "owner": "INVALID_INPUT", "stranger": "INVALID_INPUT", "admin": "INVALID_INPUT"},
    ),
    "createWechatLink": (
        'mutation { createWechatLink(input: {appId: "wx0000000000000000", kind: URL_LINK}) { url } }',
        {"owner": "INVALID_INPUT", "stranger": "INVALID_INPUT", "admin": "INVALID_INPUT"},
    ),
    "saveWechatApp": (
        'mutation { saveWechatApp(input: {appId: "?", kind: MINI_PROGRAM, name: "n"}) { appId } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "INVALID_INPUT"},
    ),
    "setWechatVerificationFile": (
        'mutation { setWechatVerificationFile(appId: "wx0000000000000000", name: "a.txt", content: "b") { appId } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "INVALID_INPUT"},
    ),
    "flowRuns": ("{ flowRuns { id } }", {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "[]"}),
    "retryFlowRun": (
        'mutation { retryFlowRun(id: "1") { id } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "NOT_FOUND"},
    ),
    "activatePayments": (
        'mutation { activatePayments(input: {orderTable: "orders"}) { active } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "INVALID_INPUT"},
    ),
    "rebindPayments": (
        'mutation { rebindPayments(input: {orderTable: "orders"}) { active } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "INVALID_INPUT"},
    ),
    "deactivatePayments": (
        'mutation { deactivatePayments(confirm: "another") { active } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "INVALID_INPUT"},
    ),
    "createMerchantAccount": (
        'mutation { createMerchantAccount(input: {provider: "X", mode: "m", name: "n", fields: {a: "b"}}) { id } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "INVALID_INPUT"},
    ),
    "refundPayment": (
        'mutation { refundPayment(input: {paymentId: "$payment", amount: "1.00"}) { id } }',
        {"owner": "FORBIDDEN", "stranger": "NOT_FOUND", "admin": "FORBIDDEN"},
    ),
    "refund": ('{ refund(id: "1") { id } }', {"owner": "null", "stranger": "null", "admin": "null"}),
    "syncRefund": (
        'mutation { syncRefund(id: "1") { id } }',
        {"owner": "NOT_FOUND", "stranger": "NOT_FOUND", "admin": "NOT_FOUND"},
    ),
    "setPlan": (
        'mutation { setPlan(plan: "pro", expiresAt: "2126-01-01T00:00:00Z") { plan } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "data"},
    ),
    "permissions": (
        "{ permissions { role action largestRefund } }",
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "data"},
    ),
    "grantPermission": (
        'mutation { grantPermission(role: "clerk", action: "payment.refund", largestRefund: "50.00") }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "data"},
    ),
    "revokePermission": (
        'mutation { revokePermission(role: "clerk", action: "payment.steal") }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "INVALID_INPUT"},
    ),
    "updateMerchantAccount": (
        'mutation { updateMerchantAccount(id: "999", fields: {a: "b"}) { id } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "NOT_FOUND"},
    ),
    "setMerchantAccountEnabled": (
        'mutation { setMerchantAccountEnabled(id: "999", enabled: false) { id } }',
        {"owner": "FORBIDDEN", "stranger": "FORBIDDEN", "admin": "NOT_FOUND"},
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_each_kind_of_caller(shared_api: Api, operation: str) -> None:
    payment = await shared_api.payment()
    query, expected = OPERATIONS[operation]
    query = query.replace("$order", str(payment.order_id)).replace("$payment", str(payment.id))
    if "$cycle" in query:
        query = query.replace("$cycle", str(await _cycle(shared_api, payment.order_id, operation)))
    expected = {"anonymous": "UNAUTHENTICATED", "expired": "UNAUTHENTICATED"} | expected
    before = await shared_api.shop.count("payment")
    got = {caller: _outcome(await _as(shared_api, caller, query)) for caller in CALLERS}
    assert got == expected
    created = 2 if operation == "createPayment" else 0
    assert await shared_api.shop.count("payment") == before + created


async def _cycle(api: Api, order_id: int, operation: str) -> int:
    """A cycle payment of the owner's; each operation has a scene of its own, which can be signed but once."""
    scenes = ("TV", "MOBILE", "LEASE", "PARKING", "METRO", "TICKET", "MEDICAL", "CATERING", "VRPAY")
    cycles = [name for name, (query, _) in OPERATIONS.items() if "$cycle" in query]
    request = StartCyclePayment(order_id, 1230, "Tea", 7, f"INDUSTRY|{scenes[cycles.index(operation)]}")
    return (await api.shop.runtime.cycles.start(BUYER, request, correlation_id="c-cycle")).id


def test_every_operation_of_the_schema_is_in_the_table() -> None:
    from app.api.schema import graphql_schema

    schema = graphql_schema()
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    assert {*schema.query_type.fields, *schema.mutation_type.fields} == OPERATIONS.keys()


async def _as(api: Api, caller: str, query: str) -> dict[str, Any]:
    if caller == "expired":
        from datetime import timedelta

        expired = {"authorization": f"Bearer {api.token('7', ttl=timedelta(seconds=-60))}"}
        return await api.post(query, None, sub=None, **expired)
    sub = {"anonymous": None, "owner": "7", "stranger": "8", "admin": "root"}[caller]
    return await api.post(query, sub=sub, role="admin" if caller == "admin" else "user")


def _outcome(answer: dict[str, Any]) -> str:
    if "errors" in answer:
        code: str = answer["errors"][0]["extensions"]["code"]
        return code
    (value,) = answer["data"].values()
    return "null" if value is None else "[]" if value == [] else "data"


async def test_secrets_go_in_and_never_come_out(api: Api, account_fields: dict[str, str]) -> None:
    create = """
    mutation ($input: CreateMerchantAccountInput!) {
      createMerchantAccount(input: $input) { id provider mode name settings enabled version }
    }
    """
    given = {"provider": "ALIPAY", "mode": "public_key", "name": "Second", "fields": account_fields}
    answer = await api.post(create, {"input": given}, sub="root", role="admin")
    account = answer["data"]["createMerchantAccount"]
    assert (account["provider"], account["name"], account["enabled"]) == ("ALIPAY", "Second", True)
    listed = await api.post("{ merchantAccounts { id name settings } }", sub="root", role="admin")
    text = json.dumps([answer, listed])
    key = account_fields["app_private_key"].splitlines()[1]
    assert key not in text
    assert "PRIVATE" not in text
    off = "mutation ($id: ID!) { setMerchantAccountEnabled(id: $id, enabled: false) { enabled } }"
    answer = await api.post(off, {"id": account["id"]}, sub="root", role="admin")
    assert answer["data"]["setMerchantAccountEnabled"] == {"enabled": False}


async def test_keys_that_do_not_fit_are_refused_without_being_repeated(
    api: Api, account_fields: dict[str, str]
) -> None:
    fields = account_fields | {"app_private_key": "MIIEvgIBADANBgkqhkiG9w0secret"}
    create = "mutation ($input: CreateMerchantAccountInput!) { createMerchantAccount(input: $input) { id } }"
    given = {"provider": "ALIPAY", "mode": "public_key", "name": "Broken", "fields": fields}
    answer = await api.post(create, {"input": given}, sub="root", role="admin")
    assert answer["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    assert "secret" not in json.dumps(answer)
    number = {"fields": {**account_fields, "app_private_key": 5}}
    answer = await api.post(create, {"input": given | number}, sub="root", role="admin")
    assert answer["errors"][0]["extensions"] == {
        "code": "INVALID_INPUT", "field": "fields", "messageZh": "输入不正确"
    }  # fmt: skip
