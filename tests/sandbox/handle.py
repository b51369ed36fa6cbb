"""/_control as a test uses it."""

from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class SandboxHandle:
    base_url: str
    http: httpx.AsyncClient

    async def control(self, method: str, path: str, body: object = None, *, status: int = 200) -> dict[str, Any]:
        """The JSON answer of /_control, whose status must be `status`."""
        response = await self.http.request(method, f"{self.base_url}/_control{path}", json=body)
        assert response.status_code == status, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def pay(self, out_trade_no: str, **options: object) -> list[dict[str, Any]]:
        """Pay; the notices sent."""
        answer = await self.control("POST", f"/trades/{out_trade_no}/pay", options)
        notices: list[dict[str, Any]] = answer["notifications"]
        return notices

    async def trade(self, out_trade_no: str) -> dict[str, Any]:
        """The provider's truth about the one trade of this number."""
        trades = (await self.control("GET", f"/trades?out_trade_no={out_trade_no}"))["trades"]
        assert len(trades) == 1, trades
        trade: dict[str, Any] = trades[0]
        return trade

    async def has_trade(self, out_trade_no: str) -> bool:
        return bool((await self.control("GET", f"/trades?out_trade_no={out_trade_no}"))["trades"])

    async def notices(self) -> list[dict[str, Any]]:
        notices: list[dict[str, Any]] = (await self.control("GET", "/notifications"))["notifications"]
        return notices

    async def advance(self, seconds: float) -> dict[str, Any]:
        return await self.control("POST", "/clock", {"advance_s": seconds})

    async def calls(self, method: str, out_trade_no: str) -> int:
        total: int = (await self.control("GET", f"/calls?method={method}&out_trade_no={out_trade_no}"))["total"]
        return total
