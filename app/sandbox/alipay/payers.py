"""Who pays at the pretend Alipay: one buyer, and as many others as there are accounts in merchants' systems."""

import hashlib
import re

BUYER_ID = "2088720000000088"
BUYER_LOGON_ID = "sha***@sandbox.com"

PAYER_ID = re.compile(r"2088[0-9]{12}")


def payer_of(external_logon_id: str) -> str:
    """The payer behind a merchant's own account name, always the same one; the one buyer for none."""
    if not external_logon_id:
        return BUYER_ID
    digest = hashlib.sha256(external_logon_id.encode()).digest()
    return f"208822{int.from_bytes(digest[:8]) % 10**10:010d}"


def logon_id_of(payer: str) -> str:
    """As Alipay shows it to merchants: masked."""
    return BUYER_LOGON_ID if payer == BUYER_ID else f"{payer[-3:]}***@sandbox.com"
