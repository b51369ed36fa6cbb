"""A service inside WeChat's cloud, written for these tests alone: calls without a key, in raw HTTP."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.sandbox.wechat.v2_client import new_number

OPENID = "oTest_invented-openid_00000D"
MISSING = object()


@dataclass(frozen=True, slots=True)
class CloudClient:
    account: dict[str, str]
    http: httpx.AsyncClient

    async def post(self, action: str, body: object, **headers: str) -> dict[str, Any]:
        """The whole answer; HTTP is always 200 here."""
        response = await self.http.post(f"{self.account['gateway']}/_/pay/{action}", json=body, headers=headers)
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        answer: dict[str, Any] = response.json()
        return answer

    async def respdata(self, action: str, body: object) -> dict[str, Any]:
        answer = await self.post(action, body)
        assert answer.keys() == {"errcode", "errmsg", "respdata"}
        assert (answer["errcode"], answer["errmsg"]) == (0, "ok")
        respdata: dict[str, Any] = answer["respdata"]
        return respdata

    async def succeed(self, action: str, body: object) -> dict[str, Any]:
        respdata = await self.respdata(action, body)
        assert (respdata["return_code"], respdata.get("result_code")) == ("SUCCESS", "SUCCESS"), respdata
        return respdata

    async def refused(self, action: str, body: object) -> tuple[str, str | int]:
        """The level at which a call was refused, and the code or words there."""
        answer = await self.post(action, body)
        if answer["errcode"] != 0:
            assert answer.keys() == {"errcode", "errmsg"}
            return "errcode", answer["errcode"]
        respdata = answer["respdata"]
        if respdata["return_code"] == "FAIL":
            assert respdata.keys() == {"return_code", "return_msg"}
            return "return_msg", respdata["return_msg"]
        assert respdata["result_code"] == "FAIL"
        return "err_code", respdata["err_code"]

    def order(self, number: str, **changes: object) -> dict[str, object]:
        fields: dict[str, object] = {
            "body": "一杯咖啡",
            "out_trade_no": number,
            "sub_mch_id": self.account["sub_mch_id"],
            "total_fee": 2,
            "openid": OPENID,
            "spbill_create_ip": "203.0.113.7",
            "env_id": self.account["env_id"],
            "callback_type": 2,
            "container": {"service": self.account["cloud_service"], "path": "/notify"},
            **changes,
        }
        return {name: value for name, value in fields.items() if value is not MISSING}

    def about(self, number: str, **fields: str) -> dict[str, str]:
        return {"sub_mch_id": self.account["sub_mch_id"], "out_trade_no": number, **fields}

    async def ordered(self, **changes: object) -> str:
        number = new_number()
        await self.succeed("unifiedorder", self.order(number, **changes))
        return number

    async def state(self, number: str) -> str:
        state: str = (await self.succeed("queryorder", self.about(number)))["trade_state"]
        return state
