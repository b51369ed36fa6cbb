"""Which providers there are. Built once per process by the composition root; nothing else names an adapter."""

from collections.abc import Mapping
from types import MappingProxyType

import httpx

from app.clock import Clock
from app.providers.alipay import AlipayProvider
from app.providers.contract import PaymentMethod, Provider
from app.providers.gateways import GatewayRule
from app.providers.wechat import WechatProvider


def build_registry(
    client: httpx.AsyncClient, clock: Clock, timeout_s: float, *, sandbox_url: str | None = None
) -> Mapping[str, Provider]:
    """Every provider by its name, sharing one client (see transport.open_client) and one clock.

    `timeout_s` bounds each call to a provider. Gateways without TLS are refused but for this machine's own and for
    `sandbox_url`, the deployment's sandbox.
    """
    gateways = GatewayRule(sandbox_url=sandbox_url)
    return by_name(
        [
            AlipayProvider(client, clock, timeout_s=timeout_s, gateways=gateways),
            WechatProvider(client, clock, timeout_s=timeout_s, gateways=gateways),
        ]
    )


def by_name(providers: list[Provider]) -> Mapping[str, Provider]:
    """The providers by name. Raises ValueError when two share a name or a method: a payment must have one answer."""
    named: dict[str, Provider] = {}
    offered: set[PaymentMethod] = set()
    for provider in providers:
        if provider.name in named or offered & provider.methods:
            raise ValueError(f"provider {provider.name} claims a name or a method that is already taken")
        named[provider.name] = provider
        offered |= provider.methods
    return MappingProxyType(named)


def provider_of_method(providers: Mapping[str, Provider], method: PaymentMethod) -> Provider | None:
    """The provider that offers `method`; None when this release has none."""
    return next((provider for provider in providers.values() if method in provider.methods), None)
