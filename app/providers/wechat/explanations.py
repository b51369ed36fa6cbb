"""What WeChat's errors mean for the person who must do something, in English and Chinese.

Two tables. A message is looked at first, because one code stands for many faults: INVALID_REQUEST is a wrong openid, a
repeat with other details, and more. Then the code, without its underscores, because one fault goes by two spellings:
ORDER_PAID in APIv3 is ORDERPAID in APIv2 and in the cloud calls.

A page meets further texts, from wx.requestPayment and WeixinJSBridge; they name no code at all.

A third table is for those who give money back: what the same codes and words mean then, where it differs.

Source: WxPayErrorCode of WxJava@9eba04d, the troubleshooting chapters of wechatpay-skills@15f40d0, and
https://pay.weixin.qq.com/doc/v3/merchant/4012556398, read 2026-09-11.
"""

import re
from typing import NamedTuple


class Explanation(NamedTuple):
    """What happened and what to do about it."""

    english: str
    chinese: str


_WRONG_KEY = Explanation(
    "WeChat could not verify our signature. APIv3: private_key and serial_no must be of one merchant certificate that "
    "is in force, and of this mchid. APIv2: api_key must be the merchant's APIv2 key. If all of that is so, set this "
    "server's clock right (NTP).",
    "签名错误：APIv3 请确认商户私钥与证书序列号属于同一张有效的商户证书且属于该商户号；APIv2 请确认 api_key "
    "为该商户号的 APIv2 密钥；仍有问题请校准服务器时间（NTP）。",
)
_CLOCK = Explanation(
    "This server's clock differs from WeChat's by more than five minutes, so that every signature is refused. Set the "
    "clock right (NTP).",
    "服务器时间与微信支付相差超过 5 分钟，签名被拒绝：请校准服务器时间（NTP）。",
)
_OPENID = Explanation(
    "The openid does not belong to the application that pays. An openid is valid under one app id only: log the payer "
    "in again with wechatLogin under the app id of this payment, and pass the openid whole.",
    "openid 与 appid 不匹配：openid 只在对应的 appid 下有效，请使用本次支付的 appid 重新登录获取完整的 openid。",
)
_NOT_BOUND = Explanation(
    "The app id is not bound to this merchant. In the merchant platform under 产品中心 → AppID账号管理 bind it, and "
    "confirm the request in the app's own console; or correct appid or mchid.",
    "商户号与 appid 未绑定：请在商户平台「产品中心 → AppID账号管理」关联该 appid 并在公众平台确认，"
    "或检查 appid 与商户号。",
)
_NOT_AUTHORISED = Explanation(
    "The merchant has not authorised this relation. Cloud pay: authorise the merchant in the Cloud Run console (设置 → "
    "其他设置 → 微信支付配置) until it shows 已授权. Service provider: check sub_mchid and its authorisation.",
    "受理关系不存在：云支付请在云托管控制台「设置 → 其他设置 → 微信支付配置」完成授权（状态为已授权）；"
    "服务商模式请检查 sub_mchid 及特约商户授权。",
)
_OTHER_DETAILS = Explanation(
    "This payment number was already used with other details. The existing order is being asked about; to change "
    "anything, close it and start a new payment.",
    "该商户订单号已用其他参数下单（参数与首次请求时不一致）：系统正在查询原订单；如需修改请关闭后重新发起支付。",
)
_PAID = Explanation(
    "This payment number is already paid. Do not pay again; the result is being asked for.",
    "该订单已支付：请勿重复支付，系统正在查询结果。",
)
_CLOSED = Explanation(
    "This order is closed or has expired. Start a new payment.",
    "该订单已关闭或已失效：请重新发起支付。",
)
_NOT_THERE = Explanation(
    "WeChat has no order of this number under this merchant. If it was made a moment ago, ask again shortly; otherwise "
    "check mchid.",
    "订单不存在：若刚刚下单请稍后再查，否则请检查商户号。",
)
_TRANSIENT = Explanation(
    "WeChat had an internal error. Nothing needs to be changed; the result is being asked for.",
    "微信支付系统繁忙，无需修改配置，系统正在查询结果。",
)
_TOO_OFTEN = Explanation(
    "WeChat is called too often for this merchant or this order. Wait a moment and try again.",
    "请求过于频繁：请稍后再试。",
)
_NO_PERMISSION = Explanation(
    "The merchant may not use this way to pay. Open the product in the merchant platform (产品中心), and look there "
    "whether the merchant is restricted.",
    "商户号该产品权限未开通或受限：请在商户平台「产品中心」开通产品，并查看商户号是否被限制。",
)
_NO_MERCHANT = Explanation(
    "WeChat does not know this merchant number. Check mchid (and sub_mchid).",
    "商户号不存在：请检查商户号（及特约商户号）。",
)
_PAYER_RESTRICTED = Explanation(
    "The payer's WeChat account is restricted or closed. The payer has to use another account or another way to pay.",
    "用户账户异常或已注销：请更换账户或支付方式。",
)
_RISK = Explanation(
    "WeChat's risk control or a limit stopped this payment. Show its message to the payer; trying again unchanged will "
    "not help.",
    "交易被微信风控或限额拦截：请将提示展示给用户，重复尝试无效。",
)
_NO_SUCH_PAYER = Explanation(
    "WeChat does not know this payer under the application that pays. Log the payer in again with wechatLogin under "
    "the app id of this payment.",
    "用户不存在：请使用本次支付的 appid 重新登录获取 openid。",
)

# Codes without underscores.
_BY_CODE: dict[str, Explanation] = {
    "ORDERPAID": _PAID,
    "ORDERCLOSED": _CLOSED,
    "OUTTRADENOUSED": _OTHER_DETAILS,
    "ORDERNOTEXIST": _NOT_THERE,
    "ORDERNOTEXISTS": _NOT_THERE,
    "INVALIDREQUEST": Explanation(
        "WeChat refused the request as a whole; its message says what does not fit. Often: an openid of another app "
        "id, or a payment number used before with other details.",
        "请求参数不符合要求：请根据微信返回的信息检查，常见原因为 openid 与 appid 不匹配或订单号重复使用。",
    ),
    "NOTENOUGH": Explanation(
        "There is not enough money: the payer's when paying, the merchant's when refunding. Pay another way, or top "
        "the merchant's account up and refund again.",
        "余额不足：支付时请用户更换支付方式；退款时请商户充值后重试。",
    ),
    "SYSTEMERROR": _TRANSIENT,
    "BANKERROR": _TRANSIENT,
    "BIZERRNEEDRETRY": _TRANSIENT,
    "FREQUENCYLIMITED": _TOO_OFTEN,
    "FREQUENCYLIMIT": _TOO_OFTEN,
    "RATELIMITEXCEEDED": _TOO_OFTEN,
    "INVALIDREQTOOMUCH": _TOO_OFTEN,
    "NOAUTH": _NO_PERMISSION,
    "APPIDMCHIDNOTMATCH": _NOT_BOUND,
    "USERNOTEXIST": _NO_SUCH_PAYER,
    "USERNOTEXISTS": _NO_SUCH_PAYER,
    "OPENIDMISMATCH": _OPENID,
    "USERACCOUNTABNORMAL": _PAYER_RESTRICTED,
    "ACCOUNTERROR": _PAYER_RESTRICTED,
    "RULELIMIT": _RISK,
    "TRADEERROR": _RISK,
    "REQUESTBLOCKED": _RISK,
    "SIGNERROR": _WRONG_KEY,
    "PARAMERROR": Explanation(
        "WeChat refused a field of the request; its message names which one (unit, time format, length).",
        "参数错误：请根据微信返回的信息检查对应字段（单位、时间格式、长度）。",
    ),
    "LACKPARAMS": Explanation(
        "WeChat misses a required field; its message names which one. Check appid, merchant number and openid.",
        "缺少参数：请根据微信返回的信息检查，常见为 appid、商户号或 openid。",
    ),
    "RESOURCENOTEXISTS": Explanation(
        "WeChat does not have what was asked for. For a refund: the order number is wrong or the order is not paid. "
        "For certificates: the merchant has none and uses the WeChat Pay public key, which is account mode v3.",
        "资源不存在：退款时请检查订单号及是否已支付；无可用的平台证书时请使用微信支付公钥（v3 模式）。",
    ),
    "TRADEOVERDUE": Explanation(
        "The order is older than a year and cannot be refunded by WeChat. Pay the money back another way.",
        "订单已超过一年，无法通过微信退款：请通过其他方式退还。",
    ),
    "TRADESTATEERROR": Explanation(
        "The order's state does not allow this. It may be paid; the result is being asked for.",
        "订单状态不允许该操作：可能已支付，系统正在查询结果。",
    ),
    "USERPAYING": Explanation(
        "The payer is entering the password. The result is being asked for.",
        "用户支付中：系统正在查询结果。",
    ),
    "MCHNOTEXISTS": _NO_MERCHANT,
    "MCHIDNOTEXIST": _NO_MERCHANT,
    # Ours: WeChat cannot know that we hold another key than the one it encrypts with.
    "APIV3KEYWRONG": Explanation(
        "What WeChat encrypted for this merchant cannot be opened with apiv3_key. Write the APIv3 key as set in the "
        "merchant platform under API安全 (not the APIv2 key).",
        "APIv3 密钥不正确，无法解密微信返回的内容：请填写商户平台「API安全」中设置的 APIv3 密钥（不是 APIv2 密钥）。",
    ),
    "APPIDNOTEXIST": Explanation(
        "WeChat does not know this app id. Check appid, and the lists of app ids if there are any.",
        "appid 不存在：请检查 appid 配置。",
    ),
    "XMLFORMATERROR": Explanation(
        "WeChat could not read the request. This is a fault of this software, not of the configuration.",
        "请求格式错误：属于程序问题，与配置无关。",
    ),
}
_BY_CODE |= dict.fromkeys(("POSTDATAEMPTY", "NOTUTF8", "REQUIREPOSTMETHOD"), _BY_CODE["XMLFORMATERROR"])

_BY_MESSAGE: tuple[tuple[re.Pattern[str], Explanation], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), explanation)
    for pattern, explanation in (
        (r"与首次请求时不一致|商户订单号重复|请求重入", _OTHER_DETAILS),
        (
            r"无效的\s*(?:sub_|sp_)?openid|openid[^。]{0,12}(?:不匹配|不一致|无效|错误)|invalid\s+openid"
            r"|(?:不匹配|不一致)[^。]{0,8}openid",
            _OPENID,
        ),
        (r"(?:appid|app_id)[^。]{0,24}(?:不匹配|未绑定|没有绑定|无绑定|未关联|绑定关系)", _NOT_BOUND),
        (r"(?:商户号|mch_?id)[^。]{0,24}(?:不匹配|未绑定|没有绑定|未关联)", _NOT_BOUND),
        (r"受理关系不存在", _NOT_AUTHORISED),
        (r"时间戳|请求已过期|时钟|timestamp|clock|超过5分钟|超过五分钟", _CLOCK),
        (r"无可用的平台证书", _BY_CODE["RESOURCENOTEXISTS"]),
        (r"产品权限未开通|无权限|权限未开通", _NO_PERMISSION),
        (r"订单已支付|该订单已支付", _PAID),
        (r"订单已关闭|已失效", _CLOSED),
        (r"签名错误|sign not match|验证签名失败", _WRONG_KEY),
    )
)

_REFUND_BALANCE = Explanation(
    "The merchant's balance at WeChat does not cover the refund. Top it up in the merchant platform, or wait for "
    "today's income, then ask for a new refund.",
    "商户号可用余额不足：请在商户平台充值（或等待当日收入）后重新发起退款。",
)
_REFUND_OVERDUE = Explanation(
    "The order is older than a year and WeChat does not refund it any more. Pay the money back another way.",
    "订单已超过一年，微信不再支持退款：请通过其他方式退还。",
)
_REFUND_NUMBER_USED = Explanation(
    "WeChat has a refund of this number with another amount. It is being asked about; compare with the merchant "
    "platform.",
    "该退款单号已用于另一金额：系统正在查询，请在商户平台核对。",
)
_REFUND_ALL_GONE = Explanation(
    "WeChat says that this order has not that much left to give back. Parts of it may have been refunded in the "
    "merchant platform itself; compare with it.",
    "该订单剩余可退金额不足：可能已在商户平台退过款，请在商户平台核对。",
)
_REFUND_TOO_MANY = Explanation(
    "This order was refunded as often as WeChat allows (50 times). Pay the rest back another way.",
    "该订单的退款次数已达上限（50 次）：请通过其他方式退还。",
)
_REFUND_NO_ORDER = Explanation(
    "WeChat has no paid order of this number under this merchant account. Check that its merchant number is the one "
    "the payment was made with.",
    "微信无此已支付订单：请确认商户号与收款时一致。",
)
_REFUND_PAYER_GONE = Explanation(
    "The payer's WeChat account is closed or restricted and takes no money. Pay it back another way.",
    "用户账户异常或已注销，无法原路退款：请通过其他方式退还。",
)
_REFUND_NOT_ALLOWED = Explanation(
    "The merchant may not refund by this interface, or is restricted. Look in the merchant platform at 产品中心 and at "
    "its notices; service providers need the merchant's authorisation for refunds.",
    "商户号无退款权限或被限制：请在商户平台「产品中心」及通知中查看；服务商需特约商户授权退款权限。",
)
_REFUND_CERTIFICATE = Explanation(
    "WeChat does not take the merchant's API certificate. Put the current apiclient_cert.p12 (base64) into "
    "client_certificate_p12 with updateMerchantAccount; the merchant platform issues it under 账户中心 → API安全.",
    "商户 API 证书无效：请在商户平台「账户中心 → API安全」下载有效的 apiclient_cert.p12（base64），"
    "通过 updateMerchantAccount 更新 client_certificate_p12。",
)
_REFUND_CLOSED = Explanation(
    "WeChat closed this refund; the money stayed with the merchant. Ask for a new refund.",
    "退款已关闭，资金未退出：请重新发起退款。",
)
_REFUND_ABNORMAL = Explanation(
    "The payer's bank did not take the money: the card is cancelled or frozen. Handle this refund in the merchant "
    "platform (交易中心 → 退款管理), by another card of the payer's or by your own account; do not ask for another.",
    "退款异常：用户银行卡已注销或冻结，资金未到账。请在商户平台「交易中心 → 退款管理」处理该笔退款"
    "（退至用户其他银行卡或商户账户），请勿重复发起。",
)
# Ours, like APIV3KEYWRONG: nothing was sent.
_REFUND_NO_CERTIFICATE = Explanation(
    "This merchant account has no client certificate, and WeChat's APIv2 refunds only with one. Add apiclient_cert.p12 "
    "(base64) as client_certificate_p12 with updateMerchantAccount, then ask for a new refund.",
    "该商户账号未配置商户 API 证书，APIv2 退款必须使用：请通过 updateMerchantAccount 添加 client_certificate_p12"
    "（apiclient_cert.p12 的 base64）后重新发起退款。",
)
_OF_REFUNDS: dict[str, Explanation] = {
    "NOTENOUGH": _REFUND_BALANCE,
    "TRADEOVERDUE": _REFUND_OVERDUE,
    "REFUNDFEEMISMATCH": _REFUND_NUMBER_USED,
    "RESOURCENOTEXISTS": _REFUND_NO_ORDER,
    "ORDERNOTEXIST": _REFUND_NO_ORDER,
    "ORDERNOTEXISTS": _REFUND_NO_ORDER,
    "INVALIDTRANSACTIONID": _REFUND_NO_ORDER,
    "USERACCOUNTABNORMAL": _REFUND_PAYER_GONE,
    "ACCOUNTERROR": _REFUND_PAYER_GONE,
    "NOAUTH": _REFUND_NOT_ALLOWED,
    "TRADESTATEERROR": Explanation(
        "The order's state does not allow a refund: to WeChat it is not paid.",
        "订单状态不允许退款：该订单在微信未支付成功。",
    ),
    "REQUESTBLOCKED": Explanation(
        "WeChat's risk control stopped the refund. Look at the notices in the merchant platform, then ask again.",
        "退款被微信风控拦截：请查看商户平台通知后重新发起退款。",
    ),
    "INVALIDREQUEST": Explanation(
        "WeChat refused the refund as a whole; its message says what does not fit. Often: more than the order has "
        "left, or an order that is not paid.",
        "退款请求不符合要求：请根据微信返回的信息检查，常见原因为超出可退金额或订单未支付。",
    ),
    "ERROR": Explanation(
        "WeChat refused the refund; its message says why. Compare the order with the merchant platform.",
        "退款被拒绝：请根据微信返回的信息处理，并在商户平台核对订单。",
    ),
    "CLOSED": _REFUND_CLOSED,
    "REFUNDCLOSE": _REFUND_CLOSED,
    "ABNORMAL": _REFUND_ABNORMAL,
    "CHANGE": _REFUND_ABNORMAL,
    # Ours: what cloud pay leaves out, nobody but the merchant platform shows.
    "REFUNDNOTLISTED": Explanation(
        "Cloud pay has this refund and does not say what became of it. Look in the merchant platform (交易中心 → "
        "退款管理) whether it arrived; do not ask for another. It is asked about further.",
        "云支付未返回该笔退款的结果：请在商户平台「交易中心 → 退款管理」核对是否到账，请勿重复发起，系统会继续查询。",
    ),
    "CLIENTCERTIFICATEMISSING": _REFUND_NO_CERTIFICATE,
    "CLIENTCERTIFICATEEXPIRED": _REFUND_CERTIFICATE,
}
_OF_REFUNDS_BY_MESSAGE: tuple[tuple[re.Pattern[str], Explanation], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), explanation)
    for pattern, explanation in (
        (r"与(?:之前|首次)请求(?:时)?不一致|请求重入", _REFUND_NUMBER_USED),
        (r"余额不足|not ?enough", _REFUND_BALANCE),
        (r"(?:超过|已过|超出).{0,16}(?:一年|1年|365|退款期)", _REFUND_OVERDUE),
        (r"(?:退款|部分退款).{0,6}次数", _REFUND_TOO_MANY),
        (r"全额退款|退款金额.{0,8}(?:大于|超过|超出)|累计退款", _REFUND_ALL_GONE),
        (r"(?<!平台)证书(?!序列号).{0,6}(?:过期|失效|出错|错误|无效|失败|不存在|吊销|作废)", _REFUND_CERTIFICATE),
        (r"(?:退款权限|无退款|未授权.{0,6}退款)", _REFUND_NOT_ALLOWED),
    )
)

_CREDENTIAL_EXPIRED = Explanation(
    "What the page was given to pay with has expired (two hours, five minutes for an H5 link), or a QR code is used by "
    "a second person. Start a new payment.",
    "支付凭证已过期（2 小时，H5 链接 5 分钟）或二维码已被他人使用：请重新发起支付。",
)
_MISSING_PACKAGE = Explanation(
    'The page passed no usable prepay_id. `package` must be the text "prepay_id=…" exactly as it came in the action of '
    "the payment, and all fields must keep their upper and lower case; after two hours, start a new payment.",
    "页面未传入有效的 package：须为支付返回的「prepay_id=…」原样，且参数大小写不变；超过 2 小时请重新发起支付。",
)
_CANCELLED = Explanation(
    "The payer cancelled. The payment can be paid again until it expires.",
    "用户取消了支付：有效期内可再次支付。",
)
_IN_THE_PAGE: tuple[tuple[re.Pattern[str], Explanation], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), explanation)
    for pattern, explanation in (
        (
            r"缺少参数[:：]?\s*total_?fee",
            Explanation(
                "WeChat's client found no amount behind what the page passed: `package` is not the payment's own "
                '"prepay_id=…", the prepay_id is empty or older than two hours, or the page runs under another app id '
                "than the payment's. Pass the payment's action unchanged; if it is so, check that the amount is at "
                "least 0.01 and that the merchant is not restricted.",
                "微信客户端未取到金额：package 不是支付返回的「prepay_id=…」、prepay_id 为空或已过期（2 小时），"
                "或页面 appId 与下单 appid 不一致。请原样传入支付返回的参数，并确认金额不低于 0.01 元、商户号未受限。",
            ),
        ),
        (
            r"缺少参数[:：]?\s*appid",
            Explanation(
                "The page passed no appId, or one that is not this merchant's. Pass the payment's action unchanged "
                "(appId with a capital I), and check that the app id is bound to the merchant and that page, login and "
                "payment use the same one with its own secret.",
                "页面未传 appId 或其未与商户号关联：请原样传入支付返回的参数（注意 appId 大小写），"
                "确认 appid 已绑定商户号，且页面、登录、支付使用同一 appid 及其正确的 secret。",
            ),
        ),
        (r"缺少参数[:：]?\s*package", _MISSING_PACKAGE),
        (
            r"缺少参数",
            Explanation(
                "The page left out a field of the payment's action, or changed its case. Pass all of it unchanged.",
                "页面缺少调起支付的参数或大小写有误：请原样传入支付返回的全部参数。",
            ),
        ),
        (
            r"URL未注册|url\s*not\s*regist",
            Explanation(
                "The page's address is not among the merchant's JSAPI payment directories. In the merchant platform "
                "under 产品中心 → 开发配置 add the page's path, ending in a slash.",
                "当前页面的URL未注册：请在商户平台「产品中心 → 开发配置」添加 JSAPI 支付授权目录（以 / 结尾）。",
            ),
        ),
        (
            r"redirect_uri|10003",
            Explanation(
                "The domain of the login page is not the official account's web authorisation domain. In the "
                "account's console under 网页授权域名 set it, without scheme and port.",
                "redirect_uri 域名与后台配置不一致：请在公众号后台设置网页授权域名（不含协议和端口）。",
            ),
        ),
        (
            r"支付验证签名失败|签名验证失败|验证签名失败|paysign",
            Explanation(
                "WeChat's client refused the page's signature: a field of the action was changed, signType belongs to "
                "the other interface, or the account's key is not this merchant's. Pass the action unchanged and check "
                "the merchant account's keys.",
                "支付验证签名失败：请原样传入支付返回的参数（signType 不可更改），并检查商户账号的密钥。",
            ),
        ),
        (
            r"下单账号与支付账号不一致",
            Explanation(
                "Another person pays than the one the payment was made for. Log in again and start a new payment.",
                "下单账号与支付账号不一致：请由当前用户重新登录并发起支付。",
            ),
        ),
        (r"商家订单信息有误|该?订单已过期|支付请求已失效|prepay_id.{0,8}(?:过期|失效)", _CREDENTIAL_EXPIRED),
        (
            r"商家参数格式有误",
            Explanation(
                "The H5 link was opened without a Referer. Go to it by navigation from a page of the registered "
                "domain; do not open it from an app or with a no-referrer policy.",
                "商家参数格式有误：H5 支付链接须从已登记域名的页面跳转（保留 Referer），不可直接打开。",
            ),
        ),
        (
            r"商家存在未配置的参数",
            Explanation(
                "The page's domain, or that of the return address, is not registered for H5 payment. Register it in "
                "the merchant platform under 产品中心 → 开发配置.",
                "商家存在未配置的参数：请在商户平台「产品中心 → 开发配置」登记 H5 支付域名，返回地址域名须一致。",
            ),
        ),
        (
            r"no permission|has no permission|没有支付权限",
            Explanation(
                "The mini-program's or page's right to pay is restricted. Look at the notices in its console, above "
                "all about 发货管理 (shipping reports), and at the payment directories.",
                "支付权限受限：请查看小程序或公众号后台通知（如发货管理）及支付授权目录。",
            ),
        ),
        (
            r"access_denied|access_control:not_allow|请在微信外打开|请在微信中打开|请在微信客户端打开",
            Explanation(
                "This way to pay does not work in this place: H5 payment is for browsers outside WeChat, JSAPI for "
                "pages inside it. Choose the way to pay by where the page runs.",
                "当前环境不支持该支付方式：H5 支付用于微信外浏览器，JSAPI 支付用于微信内页面，请按页面环境选择。",
            ),
        ),
        (r":(?:fail )?cancel$", _CANCELLED),
        (
            r"(?:get_brand_wcpay_request|requestPayment|chooseWXPay):fail",
            Explanation(
                "WeChat's client could not start the payment. Pass the action of the payment unchanged and look at the "
                "rest of the message; the result is being asked for.",
                "微信客户端未能调起支付：请原样传入支付返回的参数并查看完整提示，系统正在查询结果。",
            ),
        ),
    )
)

_OTHERWISE = Explanation(
    "WeChat refused the request. Its own code and message say why.",
    "微信支付拒绝了请求：请根据其返回的错误码和信息处理。",
)

_MESSAGE_LIMIT = 2000


def explain(code: str, message: str, *, clock_differs: bool = False) -> Explanation:
    """What a refusal means; every code has an explanation, an unknown one a general sentence.

    `clock_differs` says that the answer's own time is further from ours than WeChat allows."""
    known = code.replace("_", "").upper()
    if known == "SIGNERROR" and clock_differs:
        return _CLOCK
    if known in ("SYSTEMERROR", "BANKERROR"):
        return _TRANSIENT
    message = message[:_MESSAGE_LIMIT]
    if "缺少参数" in message:
        # One code for every missing field; the page's table knows what each of them means.
        return _matching(_IN_THE_PAGE, message) or _BY_CODE.get(known, _OTHERWISE)
    return _matching(_BY_MESSAGE, message) or _BY_CODE.get(known) or _matching(_IN_THE_PAGE, message) or _OTHERWISE


def explain_refund(code: str, message: str) -> Explanation | None:
    """What a refusal or a state means for somebody who gives money back; None where it means what `explain` says."""
    message = message[:_MESSAGE_LIMIT]
    return _matching(_OF_REFUNDS_BY_MESSAGE, message) or _OF_REFUNDS.get(code.replace("_", "").upper())


def explain_client_error(message: str) -> Explanation | None:
    """What a text means that a page got from wx.requestPayment or WeixinJSBridge; None for what is no known error."""
    message = message.strip()[:_MESSAGE_LIMIT]
    return _matching(_IN_THE_PAGE, message) or _matching(_BY_MESSAGE, message)


def _matching(table: tuple[tuple[re.Pattern[str], Explanation], ...], message: str) -> Explanation | None:
    return next((explanation for pattern, explanation in table if pattern.search(message)), None)
