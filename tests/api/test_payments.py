"""Payments over the API: what comes back, who may, and what an amount may look like."""

from typing import Any

import pytest

from tests.api.conftest import CREATE, Api


def created_input(order_id: int, **changes: Any) -> dict[str, Any]:
    return {"input": {"orderId": str(order_id), "method": "ALIPAY_PAGE", "subject": "Tea"} | changes}


async def test_owner_creates_a_payment(api: Api) -> None:
    order_id = await api.shop.order()
    query = CREATE.replace("version", "version refundedAmount paidAmount refunds { id } failure { code }"
                           " order { id data } action { __typename ... on Redirect { url html } }")
    answer = await api.post(query, created_input(order_id, amount="12.30"))
    assert "errors" not in answer, answer
    payment = answer["data"]["createPayment"]
    assert payment["orderId"] == str(order_id)
    assert payment["amount"] == "12.30"
    assert payment["status"] == "PENDING"
    assert (payment["final"], payment["checking"]) == (False, False)
    assert (payment["refundedAmount"], payment["paidAmount"], payment["refunds"]) == ("0.00", None, [])
    assert payment["order"]["data"]["title"] == "Tea"
    assert payment["action"]["__typename"] == "Redirect"
    assert "sign=" in payment["action"]["url"]
    assert payment["action"]["html"].startswith('<form method="get"')
    assert await api.shop.count("payment") == 1
