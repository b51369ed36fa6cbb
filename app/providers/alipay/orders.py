"""An order to Alipay: what every one of them says, and what Alipay would never take in one.

Source: the models AlipayTrade*Model of alipay-sdk-python 3.7.1411; https://opendocs.alipay.com/open/02ekfs, read
2026-09-11.
"""

import re
import unicodedata
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from app.errors import InvalidInput
from app.money import format_yuan
from app.providers.alipay.trades import beijing_time

SUBJECT_LIMIT = 256
URL_LIMIT = 256
# Documented are one hundred million yuan and eleven characters; with its decimals the round number would have twelve.
MAXIMUM_AMOUNT_FEN = 9_999_999_999
# A number that Alipay already knows as paid or closed is asked about, not failed: that would invite a second payment.
KNOWN_ALREADY = frozenset({"TRADE_HAS_SUCCESS", "TRADE_HAS_CLOSE", "TRADE_HAS_FINISHED"})

# Alipay wants time_expire at least a minute ahead when the call arrives. The shortest payments get this much, so that
# the way there does not use up the minute; our own expiry, which closes the trade, stays as it was asked for.
_SHORTEST_AT_ALIPAY = timedelta(seconds=75)
_OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_FORBIDDEN_IN_SUBJECT = "/=&"


def order_content(
    *,
    out_trade_no: str,
    amount_fen: int,
    subject: str,
    product_code: str,
    created_at: datetime,
    expires_at: datetime,
) -> dict[str, object]:
    """The order itself. The same order gives the same content, which is what makes repeating it harmless."""
    return {
        "out_trade_no": out_trade_no,
        "total_amount": format_yuan(amount_fen),
        "subject": subject,
        "product_code": product_code,
        "time_expire": beijing_time(max(expires_at, created_at + _SHORTEST_AT_ALIPAY)),
    }


def check_number(out_trade_no: str) -> None:
    """Raises ValueError: a number is ours to make, and no caller could mend it."""
    if _OUT_TRADE_NO.fullmatch(out_trade_no) is None:
        raise ValueError("out_trade_no is ours to make: 1 to 64 letters, digits and underscores")


def check_subject(subject: str) -> None:
    """Raises InvalidInput for what Alipay refuses as a subject."""
    if not subject.strip():
        raise InvalidInput("subject is empty: write what is sold", message_zh="请填写商品名称", field="subject")
    if len(subject) > SUBJECT_LIMIT:
        raise InvalidInput(
            f"subject has {len(subject)} characters: Alipay takes at most {SUBJECT_LIMIT}",
            message_zh=f"商品名称过长：支付宝最多 {SUBJECT_LIMIT} 个字符",
            field="subject",
        )
    found = [character for character in _FORBIDDEN_IN_SUBJECT if character in subject]
    if found:
        raise InvalidInput(
            f"subject contains {' '.join(found)}: Alipay refuses / = and & there, leave them out",
            message_zh=f"商品名称包含 {' '.join(found)}：支付宝不允许 / = & 字符，请删除",
            field="subject",
        )
    if not subject.isprintable() and any(_is_invisible(character) for character in subject):
        raise InvalidInput(
            "subject contains a control or other invisible character: leave it out",
            message_zh="商品名称包含不可见字符，请删除",
            field="subject",
        )


def _is_invisible(character: str) -> bool:
    """Controls, line ends, lone surrogates and format characters; not wide blanks, nor the joiner inside an emoji."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character != "\u200d"


def check_return_url(url: str) -> None:
    """Raises InvalidInput for what Alipay could not send a payer back to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(
            "returnUrl must be an absolute http or https URL, percent-encoded",
            message_zh="返回地址必须是完整的 http 或 https 网址（特殊字符须编码）",
            field="returnUrl",
        )
    if len(url) > URL_LIMIT:
        raise InvalidInput(
            f"returnUrl has {len(url)} characters: Alipay takes at most {URL_LIMIT}",
            message_zh=f"返回地址过长：支付宝最多 {URL_LIMIT} 个字符",
            field="returnUrl",
        )
