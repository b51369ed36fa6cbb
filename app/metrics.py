"""What the deployment tells Prometheus, on a registry of its own.

Layers below take a `Metrics` as a parameter; realtime and the domain register their own instruments on `registry`.
Labels are drawn from small fixed sets: an id or a code from outside never becomes a label.
"""

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The instruments of one process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests: Final = Counter(
            "shouyin_http_requests_total", "HTTP requests answered", ["route", "status"], registry=registry
        )
        self.request_seconds: Final = Histogram(
            "shouyin_http_request_seconds", "Time to answer", ["route"], buckets=_BUCKETS, registry=registry
        )
        self.graphql_errors: Final = Counter(
            "shouyin_graphql_errors_total", "GraphQL errors sent, by our code", ["code"], registry=registry
        )
        self.sockets: Final = Gauge("shouyin_sockets", "Open WebSocket connections", registry=registry)
        self.streams: Final = Gauge("shouyin_sse_streams", "Open event streams (SSE)", registry=registry)
        self.subscriptions: Final = Gauge(
            "shouyin_subscriptions", "Running subscriptions, all transports", registry=registry
        )
        self.socket_closes: Final = Counter(
            "shouyin_socket_closes_total", "WebSocket connections we closed, by close code", ["code"], registry=registry
        )
        self.notifications: Final = Counter(
            "shouyin_notifications_total",
            "Provider notifications, by outcome: accepted, repeated, or the reason of a refusal",
            ["provider", "outcome"],
            registry=registry,
        )
        self.flow_failures: Final = Counter(
            "shouyin_flow_failures_total", "Flow runs that raised; each is tried again or left alone", registry=registry
        )
        self.flows_abandoned: Final = Gauge(
            "shouyin_flows_abandoned", "Flow runs out of attempts, waiting for an operator", registry=registry
        )
        self.inbox_age_seconds: Final = Gauge(
            "shouyin_inbox_age_seconds", "Age of the oldest notification that waits for the worker", registry=registry
        )
        self.event_age_seconds: Final = Gauge(
            "shouyin_event_age_seconds", "Age of the oldest event not yet dispatched to flows", registry=registry
        )
        self.deductions_held: Final = Counter(
            "shouyin_deductions_held_total", "Deductions refused because of the merchant; all wait", registry=registry
        )
        self.differences: Final = Counter(
            "shouyin_differences_total", "Reports that did not fit our row", ["field"], registry=registry
        )

        # labels() takes longer than counting; routes and statuses are few
        self._request_children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def observe_request(self, route: str, status: int, started: float) -> None:
        """Counts one answered request; `started` is `time.perf_counter()` when it arrived."""
        kept = self._request_children.get((route, status))
        if kept is None:
            kept = self.requests.labels(route, f"{status // 100}xx"), self.request_seconds.labels(route)
            self._request_children[route, status] = kept
        kept[0].inc()
        kept[1].observe(time.perf_counter() - started)

    def render(self) -> bytes:
        """The text Prometheus reads."""
        return generate_latest(self.registry)
