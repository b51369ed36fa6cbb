"""Which providers there are, and which one offers a way to pay. Built once per process by the composition root."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import httpx

from app.clock import Clock
from app.errors import MethodNotConfigured
from app.providers.alipay import AlipayProvider, GatewayRule
from app.providers.contract import PaymentMethod, Provider


class Registry:
    """The providers of this process; does not change once built."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        """Raises ValueError when two providers share a name or a method: a payment must have one answer."""
        by_name: dict[str, Provider] = {}
        by_method: dict[PaymentMethod, Provider] = {}
        for provider in providers:
            if provider.name in by_name or not by_method.keys().isdisjoint(provider.methods):
                raise ValueError(f"provider {provider.name} claims a name or a method that is already taken")
            by_name[provider.name] = provider
            by_method.update(dict.fromkeys(provider.methods, provider))
        self.by_name: Mapping[str, Provider] = MappingProxyType(by_name)
        self._by_method: Mapping[PaymentMethod, Provider] = MappingProxyType(by_method)

    def find(self, name: str) -> Provider | None:
        """The provider of this name, in any case, as in a notification's path; None when there is none."""
        return self.by_name.get(name.upper())

    def provider_of_method(self, method: PaymentMethod) -> Provider:
        """The one provider that offers `method`. Raises MethodNotConfigured when this release has none."""
        provider = self._by_method.get(method)
        if provider is None:
            raise MethodNotConfigured(f"{method} is not offered by any provider of this release", field="method")
        return provider


def build_registry(
    client: httpx.AsyncClient,
    clock: Clock,
    *,
    timeout_s: float,
    allow_loopback_gateways: bool = False,
    sandbox_url: str | None = None,
) -> Registry:
    """Every provider, sharing one client (see transport.open_client) and one clock.

    `timeout_s` bounds each call. Gateways without TLS are refused but for this machine's, where allowed, and the
    deployment's own sandbox.
    """
    gateways = GatewayRule(loopback_allowed=allow_loopback_gateways, sandbox_url=sandbox_url)
    return Registry([AlipayProvider(client, clock, timeout_s=timeout_s, gateways=gateways)])
