"""Reading the typed fields of an APIv2 or cloud pay account: which there are, and what they look like."""

import re
from collections.abc import Mapping, Sequence

from app.providers.contract import AccountInvalid

MERCHANT_ID = (re.compile(r"[0-9]{6,32}", re.ASCII), "digits, such as 1900000001")
APP_ID = (re.compile(r"wx[0-9a-f]{16}", re.ASCII), "an app id, wx and 16 hexadecimal digits")
_APP_IDS_LIMIT = 20


def given_fields(
    mode: str, fields: Mapping[str, object], *, required: Sequence[str], optional: Sequence[str]
) -> dict[str, str]:
    """The fields that hold something, trimmed: exactly those of the mode, for an optional one with a typing error must
    not be dropped in silence. Raises AccountInvalid."""
    given = {name: text for name, value in fields.items() if value is not None and (text := str(value).strip())}
    known = (*required, *optional)
    for name in given:
        if name not in known:
            raise AccountInvalid(name, f"{name} is no field of a WeChat account of mode {mode}: use {', '.join(known)}")
    for name in required:
        if name not in given:
            raise AccountInvalid(name, f"{name} is missing: mode {mode} needs it")
    return given


def matching(given: Mapping[str, str], name: str, wanted: tuple[re.Pattern[str], str]) -> str:
    """The field, if it has the right shape; raises AccountInvalid."""
    pattern, description = wanted
    if pattern.fullmatch(given[name]) is None:
        raise AccountInvalid(name, f"{name} is not what WeChat issues: write {description}")
    return given[name]


def app_ids(given: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The app ids of a comma-separated field, each once, in their order; none where the field is empty."""
    found = tuple(dict.fromkeys(part for text in given.get(name, "").split(",") if (part := text.strip())))
    if len(found) > _APP_IDS_LIMIT:
        raise AccountInvalid(name, f"{name} lists more than {_APP_IDS_LIMIT} app ids")
    for app_id in found:
        matching({name: app_id}, name, APP_ID)
    return found
