"""Who calls APIv3, and whether the call is theirs: every check before anything in the body is read.

Source: pay.weixin.qq.com/doc/v3/merchant/4012365336 and 4012365342, read 2026-09.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from app.sandbox.wechat.accounts import Merchant, Merchants
from app.sandbox.wechat.errors import V3Refusal, parameter_error, signature_error
from app.sandbox.wechat.signers import KeyUnknown, Signers, v3_keys
from app.sandbox.wechat.signing import SCHEME, request_message, verified

MAX_SKEW = timedelta(seconds=300)
FEW_NONCES = 1000  # that many are not worth pruning
PARAMETERS = ("mchid", "nonce_str", "timestamp", "serial_no", "signature")
_PAIR = re.compile(r'\s*([a-z_]+)="([^"]*)"\s*')
_MALFORMED = "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》"


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller. `answer_with` is the key he wants his answer signed with, or an empty text."""

    merchant: Merchant
    answer_with: str


@dataclass(slots=True)
class Callers:
    merchants: Merchants
    signers: Signers
    _nonces: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _prune_from: int = FEW_NONCES

    def verify(self, request: Request, body: bytes) -> Caller:
        """The caller, once everything about the call but its content is right. Raises V3Refusal."""
        given = _authorization(request.headers.get("authorization", ""))
        merchant = self.merchants.find_v3(given["mchid"])
        if merchant is None:
            raise signature_error("签名错误：Authorization中的mchid不存在", field="mchid")
        if given["serial_no"] != v3_keys(merchant).serial_no:
            raise signature_error("商户证书序列号有误。请使用签名私钥匹配的证书序列号", field="serial_no")
        sent_at = self._check_timestamp(given["timestamp"])
        self._check_nonce(merchant, given["nonce_str"])
        target: bytes = request.scope["raw_path"]
        if query := request.scope["query_string"]:
            target += b"?" + query
        message = request_message(request.method, target, given["timestamp"], given["nonce_str"], body)
        if not verified(v3_keys(merchant).merchant_key, message, given["signature"]):
            raise signature_error("错误的签名，验签失败", field="signature")
        self._nonces[merchant.mchid, given["nonce_str"]] = sent_at
        self.signers.saw_caller(merchant, sent_at, MAX_SKEW)
        _check_headers(request, body)
        return Caller(merchant, self._answer_with(merchant, request))

    def reset(self) -> None:
        self._nonces.clear()

    def _check_timestamp(self, text: str) -> datetime:
        if not re.fullmatch(r"[0-9]{10}", text):
            raise signature_error(_MALFORMED, field="timestamp")
        sent_at = datetime.fromtimestamp(int(text), UTC)
        if not self.signers.is_fresh(sent_at, MAX_SKEW):
            message = "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"
            raise signature_error(message, field="timestamp")
        return sent_at

    def _check_nonce(self, merchant: Merchant, nonce: str) -> None:
        """A nonce may be used again only once its first use is too old to be replayed."""
        if not 1 <= len(nonce) <= 32:
            raise signature_error("nonce_str长度须为1到32个字符", field="nonce_str")
        if len(self._nonces) >= self._prune_from:
            self._nonces = {key: at for key, at in self._nonces.items() if self.signers.is_fresh(at, MAX_SKEW)}
            self._prune_from = max(FEW_NONCES, 2 * len(self._nonces))
        used_at = self._nonces.get((merchant.mchid, nonce))
        if used_at is not None and self.signers.is_fresh(used_at, MAX_SKEW):
            raise signature_error("签名错误：nonce_str重复，请求可能被重放", field="nonce_str")

    def _answer_with(self, merchant: Merchant, request: Request) -> str:
        serial = request.headers.get("wechatpay-serial", "")
        try:
            if serial:
                self.signers.pick(merchant, serial)
        except KeyUnknown as exc:
            message = "平台证书序列号或微信支付公钥ID错误"
            raise parameter_error("Wechatpay-Serial", message, value=serial, location="header") from exc
        return serial


def _authorization(header: str) -> dict[str, str]:
    """The five parameters, each exactly once, in any order."""
    if not header:
        raise signature_error("Http头缺少Authorization", field="Authorization")
    scheme, _, rest = header.partition(" ")
    if scheme != SCHEME:
        raise signature_error(f"Http头Authorization认证类型不正确，须为{SCHEME}", field="Authorization")
    given: dict[str, str] = {}
    for piece in rest.split(","):
        match = _PAIR.fullmatch(piece)
        if match is None or match[1] in given or match[1] not in PARAMETERS:
            raise signature_error(_MALFORMED, field="Authorization")
        given[match[1]] = match[2]
    for name in PARAMETERS:
        if not given.get(name):
            raise signature_error(f"{_MALFORMED}：缺少{name}", field=name)
    return given


def _check_headers(request: Request, body: bytes) -> None:
    accepted = {part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}
    if not request.headers.get("user-agent"):
        raise V3Refusal("PARAM_ERROR", "Http头缺少Accept或User-Agent")
    if "application/json" not in accepted:
        raise parameter_error("Accept", "Http头Accept须含application/json", location="header")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and content_type != "application/json":
        raise parameter_error("Content-Type", "Http头Content-Type须为application/json", location="header")
