"""What goes wrong on request: a queue of faults that provider calls consume.

    {"method": "alipay.trade.query", "kind": "lost_reply", "count": 2}

A fault applies to the next `count` calls of `method` (`*` for any), to one `out_trade_no` when that is given, and is
gone afterwards. The provider decides what a kind looks like in its protocol.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_COUNT = 1_000_000
MAX_LATENCY_S = 120.0
ANY_METHOD = "*"


class FaultKind(StrEnum):
    """Work is done only by lost_reply, bad_signature and latency; the others leave nothing behind.

    20000 is Alipay's word; elsewhere it is http_500. A business error's code stands in `code`, Alipay's in `sub_code`,
    and `message` in the place of the words that usually come with it.
    """

    TIMEOUT = "timeout"
    LOST_REPLY = "lost_reply"
    UNAVAILABLE = "20000"
    ERROR_RESPONSE = "error_response"
    BUSINESS_ERROR = "business_error"
    BAD_SIGNATURE = "bad_signature"
    HTTP_500 = "http_500"
    LATENCY = "latency"


@dataclass(slots=True)
class Fault:
    """`latency_s` is the delay of `latency` and how long `timeout` stays silent before it drops the connection."""

    fault_id: int
    method: str
    kind: FaultKind
    remaining: int
    out_trade_no: str | None
    latency_s: float
    code: str | None
    sub_code: str | None
    message: str | None

    def matches(self, method: str, out_trade_no: str) -> bool:
        return self.remaining > 0 and self.method in (ANY_METHOD, method) and self.out_trade_no in (None, out_trade_no)

    def described(self) -> dict[str, Any]:
        return {
            "id": self.fault_id,
            "method": self.method,
            "kind": self.kind.value,
            "remaining": self.remaining,
            "out_trade_no": self.out_trade_no,
            "latency_s": self.latency_s,
            "code": self.code,
            "sub_code": self.sub_code,
            "message": self.message,
        }


class FaultQueue:
    """Faults in the order they were asked for; the first that matches a call is used."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._next_id = 1

    def add(
        self,
        *,
        method: str,
        kind: FaultKind,
        count: int = 1,
        out_trade_no: str | None = None,
        latency_s: float | None = None,
        code: str | None = None,
        sub_code: str | None = None,
        message: str | None = None,
    ) -> Fault:
        """Queue a fault. Raises ValueError when `count` or `latency_s` is out of its bounds."""
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"count must be 1 to {MAX_COUNT}")
        seconds = latency_s if latency_s is not None else (60.0 if kind is FaultKind.TIMEOUT else 1.0)
        if not 0 <= seconds <= MAX_LATENCY_S:
            raise ValueError(f"latency_s must be 0 to {MAX_LATENCY_S:g}")
        fault = Fault(self._next_id, method, kind, count, out_trade_no, seconds, code, sub_code, message)
        self._next_id += 1
        self._faults.append(fault)
        return fault

    def take(self, method: str, out_trade_no: str) -> Fault | None:
        """The fault this call runs into, counted down; None when the call goes well."""
        for fault in self._faults:
            if fault.matches(method, out_trade_no):
                fault.remaining -= 1
                if fault.remaining == 0:
                    self._faults.remove(fault)
                return fault
        return None

    def listed(self) -> list[Fault]:
        return list(self._faults)

    def reset(self) -> None:
        self._faults.clear()
