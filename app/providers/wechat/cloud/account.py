"""A cloud pay account: no key at all. WeChat knows the caller by its container, and we the callback by a secret path.

sub_mch_id      the merchant, authorised in the Cloud Run console
appid           the mini-program that the container belongs to
env_id          the container's environment
cloud_service   the container service that gets the callback
notify_token    ours: the secret end of the callback's path, made when the account is entered and kept ever after
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.providers.contract import PaymentMethod
from app.providers.gateways import GatewayRule
from app.providers.wechat.v2.fields import APP_ID, MERCHANT_ID, given_fields, matching

CLOUD = "cloud"
MODES = (CLOUD,)

# Plain, because the platform itself answers there: the call never leaves the machine that the container runs on.
PRODUCTION_GATEWAY = "http://api.weixin.qq.com"

_REQUIRED = ("sub_mch_id", "appid", "env_id", "cloud_service")
_OPTIONAL = ("gateway", "notify_token")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_TOKEN = (re.compile(r"[A-Za-z0-9_-]{32,64}", re.ASCII), "nothing: it is made here")
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class CloudAccount:
    """A merchant account opened for use."""

    sub_mch_id: str
    appid: str
    env_id: str
    cloud_service: str
    # without a slash at its end
    gateway: str
    expected_claims: Mapping[str, frozenset[str]]
    offers: Mapping[PaymentMethod, Sequence[str]]
    notify_token: str = field(repr=False)


def seal_account(*, fields: Mapping[str, str], gateways: GatewayRule) -> tuple[dict[str, Any], dict[str, str]]:
    """Splits typed fields into public settings and the one credential. Raises AccountInvalid."""
    given = given_fields(CLOUD, fields, required=_REQUIRED, optional=_OPTIONAL)
    settings = _settings(given, gateways)
    token = matching(given, "notify_token", _TOKEN) if "notify_token" in given else secrets.token_urlsafe(_TOKEN_BYTES)
    return settings, {"notify_token": token}


def open_account(*, settings: Mapping[str, Any], credentials: Mapping[str, str], gateways: GatewayRule) -> CloudAccount:
    """Parses what `seal_account` returned. Raises AccountInvalid."""
    required = (*_REQUIRED, "notify_token")
    given = given_fields(CLOUD, {**settings, **credentials}, required=required, optional=_OPTIONAL)
    checked = _settings(given, gateways)
    return CloudAccount(
        **checked,
        expected_claims={
            "sub_mch_id": frozenset({checked["sub_mch_id"]}),
            "sub_appid": frozenset({checked["appid"]}),
        },
        offers={PaymentMethod.WECHAT_CLOUD: (checked["appid"],)},
        notify_token=matching(given, "notify_token", _TOKEN),
    )


def _settings(given: Mapping[str, str], gateways: GatewayRule) -> dict[str, str]:
    checked = {"sub_mch_id": matching(given, "sub_mch_id", MERCHANT_ID), "appid": matching(given, "appid", APP_ID)}
    for name, example in (("env_id", "prod-1a2b3c4d5e"), ("cloud_service", "shouyin")):
        checked[name] = matching(given, name, (_NAME, f"what the Cloud Run console shows, such as {example}"))
    gateway = given.get("gateway", PRODUCTION_GATEWAY).rstrip("/")
    checked["gateway"] = gateways.checked(gateway, example=PRODUCTION_GATEWAY, without_tls=PRODUCTION_GATEWAY)
    return checked
