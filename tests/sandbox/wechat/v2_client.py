"""A merchant at APIv2, written for these tests alone: own signer, own cipher, own XML, raw HTTP."""

import base64
import hashlib
import hmac
import itertools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

PATHS = {"refund": "/secapi/pay/refund"}  # all others are /pay/<action>

_numbers = itertools.count(1)

Changes = Mapping[str, str | None]
NO_CHANGES: Changes = {}


def new_number() -> str:
    return f"W{datetime.now(UTC):%H%M%S%f}-{next(_numbers)}"


def compact(instant: datetime) -> str:
    """`yyyyMMddHHmmss` in Beijing."""
    return (instant.astimezone(UTC) + timedelta(hours=8)).strftime("%Y%m%d%H%M%S")


def signature(fields: Mapping[str, str], key: str, sign_type: str) -> str:
    text = ""
    for name in sorted(fields):
        if name != "sign" and fields[name] != "":
            text += name + "=" + fields[name] + "&"
    content = (text + "key=" + key).encode()
    if sign_type == "MD5":
        return hashlib.md5(content).hexdigest().upper()
    return hmac.new(key.encode(), content, "sha256").hexdigest().upper()


def to_xml(fields: Mapping[str, str]) -> bytes:
    """Escaped texts where WeChat writes CDATA: both are the same XML."""
    return ("<xml>" + "".join(f"<{name}>{escape(text)}</{name}>" for name, text in fields.items()) + "</xml>").encode()


def from_xml(body: bytes, tag: str = "xml") -> dict[str, str]:
    root = ElementTree.fromstring(body)
    assert root.tag == tag
    assert len({child.tag for child in root}) == len(root)
    return {child.tag: child.text or "" for child in root}


def changed(fields: dict[str, str], changes: Changes) -> dict[str, str]:
    """None takes a field away."""
    return {name: text for name, text in {**fields, **changes}.items() if text is not None}


@dataclass(slots=True)
class V2Client:
    account: dict[str, str]
    http: httpx.AsyncClient
    sign_type: str = "HMAC-SHA256"

    @property
    def caller(self) -> dict[str, str]:
        names = {"appid": self.account["appid"], "mch_id": self.account["mch_id"]}
        if "sub_mch_id" in self.account:
            names["sub_mch_id"] = self.account["sub_mch_id"]
        return names | {"nonce_str": secrets.token_hex(16), "sign_type": self.sign_type}

    def signed(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {**fields, "sign": signature(fields, self.account["api_key"], self.sign_type)}

    async def post(self, action: str, body: bytes) -> dict[str, str]:
        """Every answer is HTTP 200 and one flat XML."""
        response = await self.http.post(self.account["gateway"] + PATHS.get(action, f"/pay/{action}"), content=body)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/xml; charset=utf-8"
        return from_xml(response.content)

    async def call(self, action: str, fields: Mapping[str, str], changes: Changes = NO_CHANGES) -> dict[str, str]:
        """A signed call; `changes` are made before signing. The answer's signature, where it has one, was checked."""
        answer = await self.post(action, to_xml(self.signed(changed({**self.caller, **fields}, changes))))
        if answer["return_code"] == "SUCCESS":
            assert answer["sign"] == signature(answer, self.account["api_key"], self.sign_type)
            assert (answer["return_msg"], len(answer["nonce_str"])) == ("OK", 32)
        return answer

    async def succeed(self, action: str, fields: Mapping[str, str], changes: Changes = NO_CHANGES) -> dict[str, str]:
        answer = await self.call(action, fields, changes)
        assert (answer["return_code"], answer.get("result_code")) == ("SUCCESS", "SUCCESS"), answer
        return answer

    async def refused(self, action: str, fields: Mapping[str, str], changes: Changes = NO_CHANGES) -> str:
        """`err_code`, or of an unsigned refusal its `return_msg`."""
        answer = await self.call(action, fields, changes)
        if answer["return_code"] == "FAIL":
            assert answer.keys() == {"return_code", "return_msg"}
            return answer["return_msg"]
        assert (answer["result_code"], answer["err_code_des"] != "") == ("FAIL", True)
        return answer["err_code"]

    def order(self, number: str, trade_type: str = "NATIVE", **fields: str) -> dict[str, str]:
        own = {"NATIVE": {"product_id": "coffee"}, "MWEB": {"scene_info": SCENE}, "JSAPI": {}}[trade_type]
        return {
            "body": "一杯咖啡 <&>",
            "out_trade_no": number,
            "total_fee": "2",
            "spbill_create_ip": "203.0.113.7",
            "notify_url": "http://127.0.0.1:9/notify",
            "trade_type": trade_type,
            **own,
            **fields,
        }

    async def ordered(self, trade_type: str = "NATIVE", **fields: str) -> str:
        """A new order; its number."""
        number = new_number()
        await self.succeed("unifiedorder", self.order(number, trade_type, **fields))
        return number

    async def query(self, number: str) -> dict[str, str]:
        return await self.succeed("orderquery", {"out_trade_no": number})

    def read_notice(self, body: bytes) -> dict[str, str]:
        """The fields of a notice whose signature is right."""
        fields = from_xml(body)
        sign_type = fields.get("sign_type", "MD5")
        assert fields["sign"] == signature(fields, self.account["api_key"], sign_type)
        return fields

    def read_refund_notice(self, body: bytes) -> tuple[dict[str, str], dict[str, str]]:
        """What surrounds `req_info`, and what it holds; a ValueError or ParseError when the key was another."""
        fields = from_xml(body)
        key = hashlib.md5(self.account["api_key"].encode()).hexdigest().encode()
        decryptor = Cipher(algorithms.AES(key), modes.ECB()).decryptor()
        padded = decryptor.update(base64.b64decode(fields.pop("req_info"), validate=True)) + decryptor.finalize()
        unpadder = PKCS7(128).unpadder()
        return fields, from_xml(unpadder.update(padded) + unpadder.finalize(), "root")


SCENE = '{"h5_info":{"type":"Wap","wap_url":"https://shop.example","wap_name":"收银"}}'


def acknowledgement(code: str = "SUCCESS") -> bytes:
    return f"<xml><return_code><![CDATA[{code}]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>".encode()


def unsigned_refusal(answer: dict[str, Any]) -> str:
    assert answer.keys() == {"return_code", "return_msg"}
    assert answer["return_code"] == "FAIL"
    message: str = answer["return_msg"]
    return message
