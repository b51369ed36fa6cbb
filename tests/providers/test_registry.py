"""Which provider answers for a way to pay."""

import httpx
import pytest

from app.clock import Clock
from app.providers.alipay import AlipayProvider
from app.providers.contract import PaymentMethod
from app.providers.registry import build_registry, by_name, provider_of_method


def test_alipay_answers_for_its_three_methods_and_nobody_for_the_others(
    client: httpx.AsyncClient, clock: Clock
) -> None:
    providers = build_registry(client, clock, 5.0)
    assert list(providers) == ["ALIPAY"]
    offered = {method for method in PaymentMethod if provider_of_method(providers, method) is not None}
    assert offered == {PaymentMethod.ALIPAY_PAGE, PaymentMethod.ALIPAY_WAP, PaymentMethod.ALIPAY_QR}
    assert provider_of_method(providers, PaymentMethod.ALIPAY_QR) is providers["ALIPAY"]


def test_two_providers_for_one_method_are_refused(client: httpx.AsyncClient, clock: Clock) -> None:
    first, second = (AlipayProvider(client, clock, timeout_s=5.0) for _ in range(2))
    with pytest.raises(ValueError, match="ALIPAY claims a name or a method that is already taken"):
        by_name([first, second])
