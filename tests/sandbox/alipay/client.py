"""A merchant at Alipay, written for these tests alone: own signer, own verifier, raw HTTP.

It shares nothing with the adapter nor with the sandbox, so that a mistake in either shows.
"""

import base64
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlencode

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_numbers = itertools.count(1)

PRODUCT_CODES = {"page": "FAST_INSTANT_TRADE_PAY", "wap": "QUICK_WAP_WAY"}
NO_CHANGES: dict[str, str | None] = {}


def new_number() -> str:
    return f"T{datetime.now(UTC):%H%M%S%f}_{next(_numbers)}"


def agreement_number() -> str:
    """Letters and digits only."""
    return new_number().replace("_", "X")


def beijing(instant: datetime) -> str:
    return (instant + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")


def now_beijing(**offset: float) -> str:
    return beijing(datetime.now(UTC) + timedelta(**offset))


def day(*, after: int = 0) -> str:
    """A date in Beijing, so many days from today."""
    return now_beijing(days=after)[:10]


SCENE = "INDUSTRY|DIGITAL_MEDIA"


def agreement_terms(number: str, **fields: object) -> dict[str, object]:
    """A weekly deduction of at most 30 yuan from today; a field of None is left out."""
    terms: dict[str, object] = {
        "personal_product_code": "CYCLE_PAY_AUTH_P",
        "product_code": "CYCLE_PAY_AUTH",
        "sign_scene": SCENE,
        "external_agreement_no": number,
        "external_logon_id": f"user-{number}",
        "access_params": {"channel": "QRCODE"},
        "period_rule_params": weekly(),
    }
    return {name: value for name, value in (terms | fields).items() if value is not None}


def weekly(**fields: object) -> dict[str, object]:
    rule: dict[str, object] = {
        "period_type": "DAY",
        "period": "7",
        "execute_time": day(),
        "single_amount": "30.00",
    }
    return {name: value for name, value in (rule | fields).items() if value is not None}


def without(parameters: Mapping[str, str], *left_out: str) -> str:
    """The string to sign."""
    kept = sorted((name, value) for name, value in parameters.items() if name not in left_out and value)
    return "&".join(name + "=" + value for name, value in kept)


def is_signed(public_key_pem: str, content: bytes, signature: str) -> bool:
    key = serialization.load_pem_public_key(public_key_pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        key.verify(base64.b64decode(signature), content, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def serial_number(certificate: x509.Certificate) -> str:
    names = [part.rfc4514_string() for part in reversed(list(certificate.issuer))]
    return hashlib.md5((",".join(names) + str(certificate.serial_number)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the gateway; `signed_text` is the raw value of `key`."""

    key: str
    fields: dict[str, Any]
    signed_text: bytes
    envelope: dict[str, Any]

    @property
    def outcome(self) -> tuple[str, str, str | None]:
        return self.key, self.fields["code"], self.fields.get("sub_code")


def parse_answer(raw: bytes, codec: str = "utf-8") -> Answer:
    text = raw.decode(codec)
    envelope = json.loads(text)
    key = next(iter(envelope))
    start = text.index(":") + 1
    fields, end = json.JSONDecoder().raw_decode(text, start)
    return Answer(key, fields, text[start:end].encode(codec), envelope)


@cache
def load_private_key(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@dataclass(slots=True)
class AlipayClient:
    account: dict[str, str]
    http: httpx.AsyncClient
    private_key: rsa.RSAPrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.private_key = load_private_key(self.account["app_private_key"])

    def common(self, method: str) -> dict[str, str]:
        """The common parameters of a correct call."""
        parameters = {
            "app_id": self.account["app_id"],
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": now_beijing(),
            "version": "1.0",
        }
        if self.account["mode"] == "certificate":
            roots = x509.load_pem_x509_certificates(self.account["alipay_root_cert"].encode())
            rsa_roots = [root for root in roots if isinstance(root.public_key(), rsa.RSAPublicKey)]
            app_certificate = x509.load_pem_x509_certificate(self.account["app_cert"].encode())
            parameters["app_cert_sn"] = serial_number(app_certificate)
            parameters["alipay_root_cert_sn"] = "_".join(serial_number(root) for root in rsa_roots)
        if self.account["mode"] == "isv":
            parameters["app_auth_token"] = self.account["app_auth_token"]
        return parameters

    def signed(
        self,
        method: str,
        biz_content: object,
        *,
        changes: Mapping[str, str | None] = NO_CHANGES,
        after_signing: Mapping[str, str | None] = NO_CHANGES,
    ) -> dict[str, str]:
        """All parameters with `sign`. None in `changes` (before) or `after_signing` takes a parameter away."""
        parameters = self.common(method)
        is_text = isinstance(biz_content, str)
        parameters["biz_content"] = str(biz_content) if is_text else json.dumps(biz_content, ensure_ascii=False)
        _change(parameters, changes)
        codec = "gbk" if parameters.get("charset", "").lower() == "gbk" else "utf-8"
        content = without(parameters, "sign").encode(codec)
        signature = self.private_key.sign(content, padding.PKCS1v15(), hashes.SHA256())
        parameters["sign"] = base64.b64encode(signature).decode()
        _change(parameters, after_signing)
        return parameters

    async def send(self, parameters: Mapping[str, str], *, codec: str = "utf-8") -> httpx.Response:
        """As documented: everything in the URL, biz_content in the body."""
        query = {name: value for name, value in parameters.items() if name != "biz_content"}
        return await self.http.post(
            self.account["gateway"] + "?" + urlencode(query, encoding=codec),
            content=urlencode({"biz_content": parameters.get("biz_content", "")}, encoding=codec),
            headers={"content-type": f"application/x-www-form-urlencoded;charset={codec}"},
        )

    async def execute(
        self,
        method: str,
        biz_content: object,
        *,
        changes: Mapping[str, str | None] = NO_CHANGES,
        after_signing: Mapping[str, str | None] = NO_CHANGES,
    ) -> Answer:
        """An answer read as it came; its signature is not judged."""
        parameters = self.signed(method, biz_content, changes=changes, after_signing=after_signing)
        response = await self.send(parameters)
        assert response.status_code == 200, response.text
        return parse_answer(response.content, response.charset_encoding or "utf-8")

    async def succeed(self, method: str, biz_content: object, **changes: str) -> dict[str, Any]:
        """The fields of a signed success."""
        answer = await self.execute(method, biz_content, changes=changes)
        assert answer.outcome == (method.replace(".", "_") + "_response", "10000", None), answer.fields
        assert self.signed_by_alipay(answer)
        return answer.fields

    async def refused(self, method: str, biz_content: object) -> str:
        """The sub_code of a signed 40004."""
        answer = await self.execute(method, biz_content)
        assert answer.fields["code"] == "40004", answer.fields
        assert self.signed_by_alipay(answer)
        sub_code: str = answer.fields["sub_code"]
        return sub_code

    def signed_by_alipay(self, answer: Answer) -> bool:
        return is_signed(self.account["alipay_public_key"], answer.signed_text, answer.envelope["sign"])

    # The usual calls.

    def order(self, number: str, *, product: str = "page", **fields: object) -> dict[str, object]:
        order: dict[str, object] = {"out_trade_no": number, "total_amount": "0.02", "subject": "一杯咖啡"}
        if product in PRODUCT_CODES:
            order["product_code"] = PRODUCT_CODES[product]
        return order | fields

    def page_url(
        self, number: str, *, product: str = "page", biz: Mapping[str, object] | None = None, **common: str
    ) -> str:
        """The signed link a merchant redirects to."""
        method = f"alipay.trade.{product}.pay"
        return self.link(method, self.order(number, product=product, **(biz or {})), **common)

    def link(self, method: str, biz_content: object, **common: str) -> str:
        """A signed call as a link."""
        return self.account["gateway"] + "?" + self.order_string(method, biz_content, **common)

    def order_string(self, method: str, biz_content: object, **common: str) -> str:
        """A signed call as it is given to an app."""
        parameters = self.signed(method, biz_content, changes=common)
        return "&".join(f"{k}={quote(v, safe='')}" for k, v in parameters.items())

    async def signing_page(self, number: str, *, biz: Mapping[str, object] | None = None, **common: str) -> str:
        """Where the link for signing an agreement leads."""
        link = self.link("alipay.user.agreement.page.sign", agreement_terms(number, **(biz or {})), **common)
        response = await self.http.get(link)
        assert response.status_code == 302, response.content.decode("gbk")
        return self.account["gateway"].removesuffix("/gateway.do") + response.headers["location"]

    async def open_page(self, number: str, **options: Any) -> httpx.Response:
        """The payer's browser follows the link; the trade exists afterwards."""
        response = await self.http.get(self.page_url(number, **options), follow_redirects=True)
        assert response.status_code == 200, response.text
        return response

    async def opened(self, number: str, **options: Any) -> Self:
        response = await self.open_page(number, **options)
        assert response.headers["content-type"] == "text/html;charset=utf-8", response.text
        return self

    async def query(self, number: str) -> dict[str, Any]:
        return await self.succeed("alipay.trade.query", {"out_trade_no": number})

    async def query_refused(self, number: str) -> str:
        return await self.refused("alipay.trade.query", {"out_trade_no": number})

    def read_notification(self, body: bytes, *, codec: str = "utf-8") -> dict[str, str]:
        """The fields of a notification whose signature holds."""
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, encoding=codec))
        assert is_signed(
            self.account["alipay_public_key"], without(fields, "sign", "sign_type").encode(codec), fields["sign"]
        )
        return fields


def _change(parameters: dict[str, str], changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            parameters.pop(name, None)
        else:
            parameters[name] = value
