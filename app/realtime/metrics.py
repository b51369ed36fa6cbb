"""What the realtime layer tells Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)


class RealtimeMetrics:
    """Counters and gauges of one process. `safety_poll_repairs` above zero means that an announcement was lost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"shouyin_realtime_{name}", text, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"shouyin_realtime_{name}", text, registry=registry)

        self.relay_leading = gauge("relay_leading", "1 while this process is the relay")
        self.relay_batches = counter("relay_batches", "batches of changed keys announced")
        self.relay_rows = counter("relay_rows", "change rows taken")
        self.relay_keys = counter("relay_keys", "distinct keys announced")
        self.relay_interruptions = counter("relay_interruptions", "relay sessions lost")
        self.relay_lag_s = Histogram(
            "shouyin_realtime_relay_lag_seconds",
            "age of the oldest key of a batch when it was announced",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        self.listener_connected = gauge("listener_connected", "1 while this process listens")
        self.listener_reconnects = counter("listener_reconnects", "listening sessions lost")
        self.heartbeat_age_s = gauge("listener_heartbeat_age_seconds", "since the listening session last proved alive")
        self.watches = gauge("watches", "open watches")
        self.watched_keys = gauge("watched_keys", "distinct subjects watched")
        self.coalesced_marks = counter("coalesced_marks", "announcements of a row that was already waiting to be read")
        self.replaced_rows = counter("replaced_rows", "rows a slow watcher skipped because a newer one came")
        self.reads = counter("reads", "statements that read watched rows")
        self.rows_read = counter("rows_read", "watched rows read")
        self.read_failures = counter("read_failures", "statements that failed and will be repeated")
        self.unreadable_rows = counter("unreadable_rows", "rows that could not be read as what they are")
        self.safety_poll_repairs = counter("safety_poll_repairs", "changes found by the safety poll, never announced")

    def follow(self, *, heartbeat_age_s: Callable[[], float], watched_keys: Callable[[], float]) -> None:
        """Lets two gauges be asked when they are collected instead of being written all the time."""
        self.heartbeat_age_s.set_function(heartbeat_age_s)
        self.watched_keys.set_function(watched_keys)
