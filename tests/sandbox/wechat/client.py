"""A merchant at WeChat Pay's APIv3, written for these tests alone: own signer, own verifier, raw HTTP.

It shares nothing with the adapter nor with the sandbox, so that a mistake in either shows.
"""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.sandbox.alipay.client import new_number

SCHEME = "WECHATPAY2-SHA256-RSA2048"
NO_CHANGES: Mapping[str, Any] = {}


def an_openid(number: int = 1) -> str:
    return f"oSandboxPayer{number:015d}"


def order_number() -> str:
    return new_number().replace("_", "-")[:32]


@cache
def private_key(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@cache
def public_key(pem: str) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def is_signed(key: rsa.RSAPublicKey, message: bytes, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), message, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def without(fields: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """A deep copy with one entry taken away."""
    copied: dict[str, Any] = json.loads(json.dumps(fields))
    place = copied
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return copied


@dataclass(slots=True)
class WechatClient:
    """`keys` are WeChat's by serial: the public key from the start, certificates once they were downloaded."""

    account: dict[str, str]
    http: httpx.AsyncClient
    keys: dict[str, rsa.RSAPublicKey] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = {}
        if "public_key" in self.account:
            self.keys[self.account["public_key_id"]] = public_key(self.account["public_key"])

    @property
    def is_partner(self) -> bool:
        return self.account["mode"] == "v3_partner"

    @property
    def base(self) -> str:
        return "/v3/pay/partner/transactions" if self.is_partner else "/v3/pay/transactions"

    # Signing and sending.

    def authorization(
        self, method: str, target: str, body: bytes, *, changes: Mapping[str, str | None] = NO_CHANGES
    ) -> str:
        """`changes` replace parameters before the signature is made; None takes one away."""
        given: dict[str, str | None] = {
            "mchid": self.account["mchid"],
            "nonce_str": secrets.token_hex(16),
            "timestamp": str(int(time.time())),
            "serial_no": self.account["serial_no"],
            **changes,
        }
        message = f"{method}\n{target}\n{given['timestamp']}\n{given['nonce_str']}\n".encode() + body + b"\n"
        if "signature" not in given:
            signature = private_key(self.account["private_key"]).sign(message, padding.PKCS1v15(), hashes.SHA256())
            given["signature"] = base64.b64encode(signature).decode()
        pairs = ",".join(f'{name}="{value}"' for name, value in given.items() if value is not None)
        return f"{SCHEME} {pairs}"

    async def send(
        self,
        method: str,
        target: str,
        content: object = None,
        *,
        authorization: str | None = None,
        headers: Mapping[str, str | None] = NO_CHANGES,
        changes: Mapping[str, str | None] = NO_CHANGES,
    ) -> httpx.Response:
        """`content` is the JSON of the body, or the body itself when it is bytes. None in `headers` leaves one out."""
        if isinstance(content, bytes):
            body = content
        else:
            body = b"" if content is None else json.dumps(content, ensure_ascii=False).encode()
        sent: dict[str, str | None] = {
            "authorization": authorization or self.authorization(method, target, body, changes=changes),
            "accept": "application/json",
            "content-type": "application/json" if body else None,
            "user-agent": "tests",
            **headers,
        }
        request = httpx.Request(
            method,
            self.account["gateway"] + target,
            content=body,
            headers={name: value for name, value in sent.items() if value is not None},
        )
        return await self.http.send(request)

    async def call(self, method: str, target: str, content: object = None, **options: Any) -> dict[str, Any]:
        """The fields of a signed success."""
        response = await self.send(method, target, content, **options)
        assert response.status_code in (200, 204), response.text
        assert self.signed_by_wechat(response.headers, response.content)
        return json.loads(response.content) if response.content else {}

    async def refused(
        self, method: str, target: str, content: object = None, **options: Any
    ) -> tuple[int, str, str | None]:
        """Status, code and `detail.field` of a refusal."""
        response = await self.send(method, target, content, **options)
        assert response.status_code >= 400, response.text
        answer = response.json()
        assert answer.keys() <= {"code", "message", "detail"}
        return response.status_code, answer["code"], answer.get("detail", {}).get("field")

    def signed_by_wechat(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether this is signed, now, by a key of WeChat's that the merchant knows."""
        names = ("timestamp", "nonce", "signature", "serial", "signature-type")
        timestamp, nonce, signature, serial, kind = (headers[f"wechatpay-{name}"] for name in names)
        message = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
        assert kind == SCHEME
        return serial in self.keys and is_signed(self.keys[serial], message, signature)

    # The usual calls.

    def order(self, number: str, *, product: str = "jsapi", **fields: object) -> dict[str, Any]:
        account = self.account
        order: dict[str, Any] = {
            "description": "一杯咖啡",
            "out_trade_no": number,
            "notify_url": "http://127.0.0.1:9/notify",
            "amount": {"total": 2, "currency": "CNY"},
        }
        if self.is_partner:
            order |= {"sp_appid": account["appid"], "sp_mchid": account["mchid"], "sub_mchid": account["sub_mchid"]}
        else:
            order |= {"appid": account["appid"], "mchid": account["mchid"]}
        if product == "jsapi":
            order["payer"] = {"sp_openid" if self.is_partner else "openid": an_openid()}
        if product == "h5":
            order["scene_info"] = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
        return order | fields

    async def prepay(self, number: str, *, product: str = "jsapi", **fields: object) -> dict[str, Any]:
        return await self.call("POST", f"{self.base}/{product}", self.order(number, product=product, **fields))

    async def prepay_refused(self, order: object, *, product: str = "jsapi") -> tuple[int, str, str | None]:
        return await self.refused("POST", f"{self.base}/{product}", order)

    def numbers(self) -> dict[str, str]:
        if self.is_partner:
            return {"sp_mchid": self.account["mchid"], "sub_mchid": self.account["sub_mchid"]}
        return {"mchid": self.account["mchid"]}

    def query_target(self, number: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.numbers().items())
        return f"{self.base}/out-trade-no/{quote(number, safe='')}?{query}"

    async def query(self, number: str) -> dict[str, Any]:
        return await self.call("GET", self.query_target(number))

    async def query_refused(self, number: str) -> tuple[int, str, str | None]:
        return await self.refused("GET", self.query_target(number))

    async def close(self, number: str) -> httpx.Response:
        return await self.send("POST", f"{self.base}/out-trade-no/{number}/close", self.numbers())

    async def download_certificates(self) -> list[str]:
        """Learn WeChat's certificates; their serials. The first answer is verified with the key it brings."""
        response = await self.send("GET", "/v3/certificates")
        assert response.status_code == 200, response.text
        serials = []
        for entry in response.json()["data"]:
            pem = self.decrypted(entry["encrypt_certificate"], associated_data="certificate")
            certificate = x509.load_pem_x509_certificate(pem)
            key = certificate.public_key()
            assert isinstance(key, rsa.RSAPublicKey)
            assert entry["serial_no"] == f"{certificate.serial_number:X}"
            self.keys[entry["serial_no"]] = key
            serials.append(entry["serial_no"])
        assert self.signed_by_wechat(response.headers, response.content)
        return serials

    def decrypted(self, resource: Mapping[str, str], *, associated_data: str) -> bytes:
        assert (resource["algorithm"], resource["associated_data"]) == ("AEAD_AES_256_GCM", associated_data)
        return AESGCM(self.account["apiv3_key"].encode()).decrypt(
            resource["nonce"].encode(), base64.b64decode(resource["ciphertext"]), associated_data.encode()
        )

    def read_notification(
        self, headers: Mapping[str, str], body: bytes, *, associated_data: str = "transaction"
    ) -> dict[str, Any]:
        """The plaintext of a notification whose signature holds."""
        assert self.signed_by_wechat(headers, body)
        resource = json.loads(body)["resource"]
        plaintext: dict[str, Any] = json.loads(self.decrypted(resource, associated_data=associated_data))
        return plaintext


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"
