"""How WeChat's open platform refuses: HTTP 200 and `{"errcode":40029,"errmsg":"invalid code, rid: …"}`.

Source: developers.weixin.qq.com, the error tables of code2Session, snsAccessToken, getAccessToken,
getStableAccessToken, generateScheme and generateUrlLink, read 2026-09. `rid` is what WeChat's support asks for.
"""

import secrets

BUSY = -1

MESSAGES = {
    BUSY: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40003: "invalid openid",
    40013: "invalid appid",
    40029: "invalid code",
    40030: "invalid refresh_token",
    40097: "invalid args",
    40125: "invalid appsecret",
    40163: "code been used",
    40164: "invalid ip 127.0.0.1, not in whitelist",
    40165: "invalid weapp pagepath",
    40212: "invalid query",
    40226: "code blocked",
    41001: "access_token missing",
    41002: "appid missing",
    41003: "refresh_token missing",
    41004: "appsecret missing",
    41008: "missing code",
    41009: "missing openid",
    42001: "access_token expired",
    42002: "refresh_token expired",
    42003: "oauth_code expired",
    43001: "require GET method",
    43002: "require POST method",
    44002: "empty post data",
    44990: "reach max api second frequence limit",
    44993: "reach max api day frequence limit",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    48001: "api unauthorized",
    85079: "miniprogram has no online release",
    85401: "time limit between 1min and 30days",
    85402: "invalid env_version",
}


class OpenPlatformRefusal(Exception):
    """One of WeChat's numbers; nothing was changed."""

    def __init__(self, errcode: int, errmsg: str | None = None) -> None:
        self.errcode = errcode
        self.errmsg = MESSAGES.get(errcode, "unknown error") if errmsg is None else errmsg
        super().__init__(f"{errcode} {self.errmsg}")

    def fields(self) -> dict[str, object]:
        return {"errcode": self.errcode, "errmsg": f"{self.errmsg}, rid: {_new_rid()}"}


def _new_rid() -> str:
    return "-".join(secrets.token_hex(4) for _ in range(3))
