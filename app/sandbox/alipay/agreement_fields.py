"""The business fields of the agreement methods, and what a request for a signature says.

What is wrong with such a request is told to the payer, on the page that opens instead of the signing page, in these
words:

    404                                      nested parameters are texts instead of objects
    系统异常                                  access_params is missing
    系统异常，签约失败，商户请求数据错误          any other field
    商户协议不存在                             the product codes do not belong together

Source: AlipayUserAgreement*Model and SignParams of alipay-sdk-python 3.7.1411; support answers 285549 to 285590 for
the words; read 2026-09.
"""

import re
from datetime import date
from typing import Any

from app.sandbox.alipay.agreements import LAST_DAY_OF_EVERY_MONTH, NO_SCENE, PeriodRule, PeriodType, SignTerms
from app.sandbox.alipay.errors import BusinessRefusal, invalid_field
from app.sandbox.alipay.fields import (
    Field,
    check_fields,
    flag,
    json_object,
    matching,
    one_of,
    parse_amount,
    text_up_to,
    whole_number,
    yuan,
)
from app.sandbox.alipay.payers import PAYER_ID

SHORTEST_PERIOD_DAYS = 7
CYCLE, GENERAL = "CYCLE_PAY_AUTH", "GENERAL_WITHHOLDING"
CYCLE_P, GENERAL_P = "CYCLE_PAY_AUTH_P", "GENERAL_WITHHOLDING_P"
# The last one is 商家扣款 with its periodic template.
_PRODUCTS = {(CYCLE_P, CYCLE), (GENERAL_P, GENERAL), (CYCLE_P, GENERAL)}

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_HTTP_URL = re.compile(r"https?://[^\s/?#]+\S*", re.ASCII)
_NESTED = ("access_params", "period_rule_params", "sub_merchant", "device_params", "identity_params")


def parse_day(name: str, value: object) -> date:
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise invalid_field(name, "格式必须是 yyyy-MM-dd")


def _day(name: str, value: object) -> None:
    parse_day(name, value)


def _positive(name: str, value: object) -> None:
    whole_number(name, value)
    if int(str(value)) < 1:
        raise invalid_field(name, "必须大于 0")


_AGREEMENT_NO = matching(64, re.compile(r"[0-9]+"), "只能由数字组成")
_EXTERNAL_NO = matching(32, re.compile(r"[A-Za-z0-9]+"), "只能由字母和数字组成")
_PERSONAL_PRODUCT = one_of(CYCLE_P, GENERAL_P)
_THIRD_PARTY = one_of("PARTNER", "MERCHANT")

_SIGNING: dict[str, Field] = {
    "personal_product_code": Field(_PERSONAL_PRODUCT, required=True),
    "product_code": Field(text_up_to(64)),
    "access_params": Field(json_object("channel", required="channel"), required=True),
    "sign_scene": Field(text_up_to(64)),
    "external_agreement_no": Field(_EXTERNAL_NO),
    "external_logon_id": Field(text_up_to(100)),
    "period_rule_params": Field(json_object()),
    "effect_time": Field(_positive),
    "sub_merchant": Field(
        json_object("sub_merchant_id sub_merchant_name sub_merchant_service_name sub_merchant_service_description")
    ),
    "specified_deduct_rule_params": Field(json_object()),
    "allow_huazhi_degrade": Field(flag),
}
PAGE_SIGN: dict[str, Field] = _SIGNING | {
    "sign_validity_period": Field(matching(8, re.compile(r"[1-9][0-9]*[md]"), "格式必须是 2m 或 90d")),
    # NOTICE would need alipay.user.agreement.sign.effect, which is not played.
    "agreement_effect_type": Field(one_of("DIRECT")),
    "third_party_type": Field(_THIRD_PARTY),
    "merchant_process_url": Field(matching(255, _HTTP_URL, "必须是 http(s) 绝对地址")),
    "identity_params": Field(json_object("user_name cert_no identity_hash sign_user_id")),
    "user_age_range": Field(text_up_to(64)),
    "device_params": Field(json_object()),
    "promo_params": Field(text_up_to(2048)),
    "prod_params": Field(json_object()),
    "pass_params": Field(text_up_to(512)),
    "specified_sort_channel_params": Field(json_object()),
    "zm_auth_params": Field(json_object()),
    "ori_agreement_no": Field(_AGREEMENT_NO),
}
# agreement_sign_params of a payment: the only place for sign_notify_url.
PAY_AND_SIGN: dict[str, Field] = _SIGNING | {
    "sign_notify_url": Field(matching(256, _HTTP_URL, "必须是 http(s) 绝对地址")),
    "recommend_sort_channel_params": Field(json_object()),
}
_PERIOD_RULE: dict[str, Field] = {
    "period_type": Field(one_of("DAY", "MONTH"), required=True),
    "period": Field(_positive, required=True),
    "execute_time": Field(_day, required=True),
    "single_amount": Field(yuan, required=True),
    "total_amount": Field(yuan),
    "total_payments": Field(_positive),
    "is_trial_mode": Field(flag),
    "scene_rule_params": Field(json_object("discount_period low_price_period")),
}
_BY_SOME_KEY: dict[str, Field] = {
    "agreement_no": Field(_AGREEMENT_NO),
    "personal_product_code": Field(_PERSONAL_PRODUCT),
    "sign_scene": Field(text_up_to(64)),
    "external_agreement_no": Field(_EXTERNAL_NO),
    "alipay_user_id": Field(matching(32, PAYER_ID, "必须是 2088 开头的 16 位数字")),
    "alipay_open_id": Field(text_up_to(128)),
    "alipay_logon_id": Field(text_up_to(100)),
    "third_party_type": Field(_THIRD_PARTY),
}
AGREEMENT_QUERY: dict[str, Field] = _BY_SOME_KEY
UNSIGN: dict[str, Field] = _BY_SOME_KEY | {
    "operate_type": Field(one_of("confirm", "invalid")),
    "extend_params": Field(text_up_to(512)),
}
PLAN_MODIFY: dict[str, Field] = {
    "agreement_no": Field(_AGREEMENT_NO, required=True),
    "deduct_time": Field(_day, required=True),
    "memo": Field(text_up_to(256)),
}


def read_sign_terms(content: dict[str, Any], fields: dict[str, Field], *, app_id: str, today: date) -> SignTerms:
    """What is to be signed, from page.sign or from `agreement_sign_params`. Raises in the words of this module."""
    if any(isinstance(content.get(name), str) for name in _NESTED):
        raise BusinessRefusal("404", "404：嵌套参数必须是 JSON 对象，不能是字符串", page_status=404)
    if "access_params" not in content:
        raise BusinessRefusal("SYSTEM_ERROR", "系统异常：缺少 access_params")
    try:
        check_fields(content, fields)
        channel = content["access_params"]["channel"]
        one_of("ALIPAYAPP", "QRCODE", "QRCODEORSMS")("access_params.channel", channel)
        scene = _scene(content)
        rule = _rule(content, today)
    except BusinessRefusal as refused:
        message = f"系统异常，签约失败，商户请求数据错误：{refused.sub_msg}"
        raise BusinessRefusal("ILLEGAL_PARAMS", message) from refused
    return SignTerms(
        app_id=app_id,
        personal_product_code=content["personal_product_code"],
        product_code=_product_code(content),
        scene=scene,
        external_agreement_no=content.get("external_agreement_no", ""),
        external_logon_id=content.get("external_logon_id", ""),
        rule=rule,
        validity=content.get("sign_validity_period", ""),
    )


def _scene(content: dict[str, Any]) -> str:
    scene: str = content.get("sign_scene", NO_SCENE)
    if "external_agreement_no" in content and scene == NO_SCENE:
        raise invalid_field("sign_scene", f"传入 external_agreement_no 时必填，且不能为 {NO_SCENE}")
    return scene


def _product_code(content: dict[str, Any]) -> str:
    """What was contracted. Only 周期扣款 may leave it out."""
    personal = content["personal_product_code"]
    product: str = content.get("product_code", CYCLE if personal == CYCLE_P else "")
    if (personal, product) not in _PRODUCTS:
        raise BusinessRefusal("MERCHANT_AGREEMENT_IS_NOT_EXIST", "商户协议不存在：product_code 与签约产品不符")
    return product


def _rule(content: dict[str, Any], today: date) -> PeriodRule | None:
    if "period_rule_params" not in content:
        if content["personal_product_code"] == CYCLE_P:
            raise invalid_field("period_rule_params", "不能为空")
        return None
    params = content["period_rule_params"]
    check_fields(params, _PERIOD_RULE)
    rule = PeriodRule(
        period_type=PeriodType(params["period_type"]),
        period=int(params["period"]),
        first_on=parse_day("execute_time", params["execute_time"]),
        single_amount_fen=parse_amount("single_amount", params["single_amount"]),
        total_amount_fen=parse_amount("total_amount", params["total_amount"]) if "total_amount" in params else None,
        total_payments=int(params["total_payments"]) if "total_payments" in params else None,
    )
    if rule.period_type is PeriodType.DAY and rule.period < SHORTEST_PERIOD_DAYS:
        raise invalid_field("period", f"按天扣款时最短 {SHORTEST_PERIOD_DAYS} 天")
    if rule.period_type is PeriodType.MONTH and rule.first_on.day > LAST_DAY_OF_EVERY_MONTH:
        raise invalid_field("execute_time", "按月扣款的日期必须在 1 到 28 日之间")
    if rule.first_on < today:
        raise invalid_field("execute_time", "不能早于今天")
    return rule
