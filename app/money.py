"""Money: integer fen inside, decimal yuan text at the borders. Never a float.

"12.30" → parse_yuan → 1230 → format_yuan → "12.30"
"""

import re

# ASCII digits only: int() and Decimal() also read full-width and other Unicode digits.
_YUAN = re.compile(r"(0|[1-9][0-9]{0,12})(?:\.([0-9]{1,2}))?", re.ASCII)


def parse_yuan(text: str) -> int:
    """Fen for a yuan amount such as "12", "12.3" or "12.30"; exact.

    Raises ValueError with a reason for a person when the text is anything else: signs, exponents, blanks, thousands
    separators, more than two decimals, full-width digits, NaN, 14 digits or more before the point.
    """
    match = _YUAN.fullmatch(text)
    if match is None:
        raise ValueError(f'{text[:40]!r} is not an amount in yuan: write digits, at most two decimals, such as "12.30"')
    yuan, decimals = match.groups(default="")
    return int(yuan) * 100 + int(decimals.ljust(2, "0"))


def format_yuan(fen: int) -> str:
    """Yuan text with exactly two decimals: 1230 → "12.30"."""
    sign, fen = ("-", -fen) if fen < 0 else ("", fen)
    return f"{sign}{fen // 100}.{fen % 100:02d}"
