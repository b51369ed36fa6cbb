"""The exported schema: what stands in the repository, and the public names."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.api.schema import export_schema

ROOT = Path(__file__).resolve().parents[2]
CONTRACT_CHECK = ROOT.parent / "shared" / "tools" / "contract_check.py"
FINISHED = (
    "Payment,PaymentStatus,PaymentMethod,PaymentAction,Redirect,QrCode,WechatPayParams,AlipayJsapiParams,Failure,Refund,"
    "RefundStatus,Order,CreatePaymentInput,ActivatePaymentsInput,PaymentFeature,Query.paymentFeature,Query.payment,"
    "Query.payments,Query.order,Mutation.createPayment,Mutation.syncPayment,Mutation.closePayment,"
    "Mutation.activatePayments,Login,Mutation.wechatLogin,"
    "Subscription.payment,Subscription.payments,Subscription.order,Yuan,DateTime,JSON"
)


def test_schema_in_the_repository_is_the_exported_one() -> None:
    committed = (ROOT / "schema.graphql").read_text(encoding="utf-8")
    assert committed == export_schema(), "run: python -m app.api.schema > schema.graphql"


def test_public_names_are_kept() -> None:
    if not CONTRACT_CHECK.exists():
        pytest.skip("the contract stands beside the repository and is not here")
    command = [sys.executable, str(CONTRACT_CHECK), str(ROOT / "schema.graphql"), "--only", FINISHED]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.stdout.strip(), checked.returncode) == ("the contract is kept", 0)
