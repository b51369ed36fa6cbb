"""Which provider answers for a way to pay."""

import httpx
import pytest

from app.clock import Clock
from app.providers.alipay import AlipayProvider
from app.providers.contract import PaymentMethod
from app.providers.registry import build_registry, by_name, provider_of_method


def test_each_provider_answers_for_its_methods_and_nobody_for_the_others(
    client: httpx.AsyncClient, clock: Clock
) -> None:
    providers = build_registry(client, clock, 5.0)
    answering = {method: provider_of_method(providers, method) for method in PaymentMethod}
    assert {method.value: provider.name for method, provider in answering.items() if provider is not None} == {
        "ALIPAY_PAGE": "ALIPAY",
        "ALIPAY_WAP": "ALIPAY",
        "ALIPAY_QR": "ALIPAY",
        "WECHAT_MINI_PROGRAM": "WECHAT",
        "WECHAT_JSAPI": "WECHAT",
        "WECHAT_H5": "WECHAT",
        "WECHAT_NATIVE": "WECHAT",
        "WECHAT_CLOUD": "WECHAT",
    }
    assert list(providers) == ["ALIPAY", "WECHAT"]


def test_two_providers_for_one_method_are_refused(client: httpx.AsyncClient, clock: Clock) -> None:
    first, second = (AlipayProvider(client, clock, timeout_s=5.0) for _ in range(2))
    with pytest.raises(ValueError, match="ALIPAY claims a name or a method that is already taken"):
        by_name([first, second])
