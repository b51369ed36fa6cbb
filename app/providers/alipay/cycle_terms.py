"""What an Alipay account may agree on with a payer (周期扣款, or 商家扣款 with periods), as its settings say.

    setting                        default           where the default is from
    cycle_product                  CYCLE_PAY_AUTH    周期扣款; GENERAL_WITHHOLDING is 商家扣款
    cycle_scenes                   the known list    support answer 285549 (2020); newer contracts name their own scenes
    cycle_largest_amount           100.00 (yuan)     support answer 285590 (2020)
    cycle_shortest_interval_days   7                 the field text of period, period_type DAY
    cycle_window_days              3                 support answers of 2020; a text of 2024 says 5: the smaller holds
    cycle_plan_changes             10                support answers of 2020; a text of 2024 knows no limit: `unlimited`

Alipay changes all of these, and differently for each merchant's contract: the console shows what was signed. An account
whose `cycle_scenes` is `none` signs no agreements.

Source: developer.aliyun.com/ask/285540 to 285590; opendocs.alipay.com/open/041bxs and /support/01rg2g, as mirrored in
2024; AlipayUserAgreementPageSignModel and PeriodRuleParams of alipay-sdk-python 3.7.1411.
"""

import re
from collections.abc import Mapping

from app.money import format_yuan, parse_yuan
from app.providers.contract import AccountInvalid, AgreementTerms

SETTINGS = (
    "cycle_product",
    "cycle_scenes",
    "cycle_largest_amount",
    "cycle_shortest_interval_days",
    "cycle_window_days",
    "cycle_plan_changes",
)

# What agreements and the deductions under them are sold as; which one depends on the contract the merchant signed.
PRODUCTS = ("CYCLE_PAY_AUTH", "GENERAL_WITHHOLDING")
NO_SCENES = "none"
UNLIMITED = "unlimited"

_KNOWN_SCENES = (
    "INDUSTRY|LOTTERY,INDUSTRY|SOCIALIZATION,INDUSTRY|MEDICAL,INDUSTRY|APPSTORE,INDUSTRY|APP_STORE,"
    "INDUSTRY|SUPERMARKET,INDUSTRY|B2B_TICKET_AGENT,INDUSTRY|CARRENTAL,INDUSTRY|GENERAL_TRAVEL,INDUSTRY|CATERING,"
    "INDUSTRY|PURCHASE,INDUSTRY|REPAYMENT,INDUSTRY|DIGITAL_MEDIA,INDUSTRY|GAME_CHARGE,INDUSTRY|BADGE_CONSUMPTION,"
    "INDUSTRY|PARKING,INDUSTRY|MOBILE,INDUSTRY|TV,INDUSTRY|LEASE,INDUSTRY|EDU,INDUSTRY|VOICEPAY,"
    "INDUSTRY|FOREX_PLAT_PURCHASE,INDUSTRY|ALIPAYGO,INDUSTRY|TICKET,INDUSTRY|METRO,INDUSTRY|VRPAY,"
    "INDUSTRY|LIFE_PAYMENT"
)
_SCENE = re.compile(r"[A-Za-z0-9_]{1,31}\|[A-Za-z0-9_]{1,32}", re.ASCII)
# Alipay's own word for no scene; it refuses it beside a number of ours.
_NO_SCENE_OF_THEIRS = "DEFAULT|DEFAULT"
_DAYS = re.compile(r"(0|[1-9][0-9]{0,3})", re.ASCII)
_LARGEST_FEN = 9_999_999_999


def cycle_settings(given: Mapping[str, str]) -> dict[str, str]:
    """The settings, checked and with their defaults filled in. Raises AccountInvalid."""
    product = given.get("cycle_product", PRODUCTS[0])
    if product not in PRODUCTS:
        raise AccountInvalid("cycle_product", f"cycle_product must be one of {', '.join(PRODUCTS)}")
    plan_changes = given.get("cycle_plan_changes", "10")
    if plan_changes.lower() != UNLIMITED:
        plan_changes = str(_days(given, "cycle_plan_changes", "10", f"a number of times, or {UNLIMITED}"))
    interval = _days(given, "cycle_shortest_interval_days", "7", "a number of days, such as 7")
    window = _days(given, "cycle_window_days", "3", "a number of days, such as 3")
    if interval < 1:
        raise AccountInvalid("cycle_shortest_interval_days", "cycle_shortest_interval_days must be at least 1")
    if window >= interval:
        raise AccountInvalid(
            "cycle_window_days", "cycle_window_days must be below cycle_shortest_interval_days: windows may not meet"
        )
    return {
        "cycle_product": product,
        "cycle_scenes": _scenes(given.get("cycle_scenes", _KNOWN_SCENES)),
        "cycle_largest_amount": _largest_amount(given.get("cycle_largest_amount", "100.00")),
        "cycle_shortest_interval_days": str(interval),
        "cycle_window_days": str(window),
        "cycle_plan_changes": plan_changes.lower(),
    }


def agreement_terms(checked: Mapping[str, str]) -> AgreementTerms:
    """What the settings mean; they are what `cycle_settings` returned."""
    scenes, changes = checked["cycle_scenes"], checked["cycle_plan_changes"]
    return AgreementTerms(
        scenes=frozenset() if scenes == NO_SCENES else frozenset(scenes.split(",")),
        largest_deduction_fen=parse_yuan(checked["cycle_largest_amount"]),
        shortest_interval_days=int(checked["cycle_shortest_interval_days"]),
        window_days=int(checked["cycle_window_days"]),
        plan_changes=None if changes == UNLIMITED else int(changes),
    )


def _scenes(text: str) -> str:
    if text.lower() == NO_SCENES:
        return NO_SCENES
    scenes = list(dict.fromkeys(scene.strip() for scene in text.split(",")))
    for scene in scenes:
        if _SCENE.fullmatch(scene) is None or scene == _NO_SCENE_OF_THEIRS:
            raise AccountInvalid(
                "cycle_scenes",
                f"cycle_scenes: {scene[:70]!r} is no scene; write them as on the contract, separated by commas, such "
                f"as INDUSTRY|DIGITAL_MEDIA,INDUSTRY|EDU, or {NO_SCENES} to sign no agreements",
            )
    return ",".join(scenes)


def _largest_amount(text: str) -> str:
    try:
        fen = parse_yuan(text)
    except ValueError as exc:
        raise AccountInvalid("cycle_largest_amount", f"cycle_largest_amount: {exc}") from exc
    if not 1 <= fen <= _LARGEST_FEN:
        raise AccountInvalid("cycle_largest_amount", "cycle_largest_amount must be from 0.01 to 99999999.99 yuan")
    return format_yuan(fen)


def _days(given: Mapping[str, str], name: str, default: str, wanted: str) -> int:
    text = given.get(name, default)
    if _DAYS.fullmatch(text) is None:
        raise AccountInvalid(name, f"{name} must be {wanted}")
    return int(text)
