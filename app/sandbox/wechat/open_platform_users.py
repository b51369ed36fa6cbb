"""Who uses WeChat in the sandbox, and which openid belongs to which app.

The same person has another openid under every app id. The openids of the sandbox's own users are derived from app id
and user, so that they survive a restart; a test may invent any other of the right form.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

OPENID_FORM = re.compile(r"o[A-Za-z0-9_-]{27}")


@dataclass(frozen=True, slots=True)
class User:
    """`is_snapshot`: the virtual account of a visitor of the snapshot page, who must not be charged."""

    user_id: str
    nickname: str
    is_snapshot: bool = False


USERS = {
    user.user_id: user
    for user in (User("lin", "林小满"), User("chen", "陈立冬"), User("guest", "快照页访客", is_snapshot=True))
}
DEFAULT_USER = USERS["lin"]


def openid_of(user: User, app_id: str) -> str:
    return "o" + _derived(f"openid:{app_id}:{user.user_id}")


def unionid_of(user: User) -> str:
    """The same under all apps: in the sandbox they are bound to one open-platform account."""
    return "o" + _derived(f"unionid:{user.user_id}")


def _derived(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:27]


class Openids:
    """Which app knows which openid."""

    def __init__(self, app_ids: Iterable[str]) -> None:
        self._own = {openid_of(user, app_id): app_id for app_id in app_ids for user in USERS.values()}
        self._logged_in: dict[str, str] = {}

    def belongs(self, openid: str, app_id: str) -> bool:
        """Whether this openid may be a payer under `app_id`.

        True for every text of an openid's form that is not known under another app: tests invent payers.
        """
        if OPENID_FORM.fullmatch(openid) is None:
            return False
        return self._own.get(openid, self._logged_in.get(openid, app_id)) == app_id

    def remember(self, openid: str, app_id: str) -> None:
        """From now on this openid is `app_id`'s alone. Ask `belongs` first."""
        self._logged_in[openid] = app_id

    def reset(self) -> None:
        self._logged_in.clear()
