"""What Alipay's error codes mean for the person who must do something, in English and Chinese.

A code is looked up by its last dotted part, because one fault goes by several spellings: ACQ.TRADE_NOT_EXIST and
TRADE_NOT_EXIST, ACQ.SYSTEM_ERROR and AQC.SYSTEM_ERROR, isp.unknow-error and aop.unknow-error.

What a refused deduction means stands in deduction_refusals.py.

Source: the error enums of page.pay, wap.pay, precreate, query, close, refund and of the calls about agreements in
alipay-sdk-php-all@d95249a3 (v3/src/Model), and the gateway's codes in its public documentation, read 2026-09-11.
"""

from typing import NamedTuple


class Explanation(NamedTuple):
    """What happened and what to do about it."""

    english: str
    chinese: str


_NO_SUCH_PAYER = Explanation(
    "The payer's Alipay account no longer exists. Another account has to sign.",
    "用户支付宝账户不存在：需要使用其他账户重新签约。",
)

_BY_SUB_CODE: dict[str, Explanation] = {
    # Gateway: the call itself
    "unknow-error": Explanation(
        "Alipay is temporarily unavailable. Nothing needs to be changed; the result is being asked for.",
        "支付宝服务暂时不可用，无需修改配置，系统正在查询结果。",
    ),
    "SYSTEM_ERROR": Explanation(
        "Alipay had an internal error. Nothing needs to be changed; the result is being asked for.",
        "支付宝系统异常，无需修改配置，系统正在查询结果。",
    ),
    "invalid-signature": Explanation(
        "Alipay could not verify our signature. Upload the public key that belongs to app_private_key to this app on "
        "the Alipay open platform, and check that app id and gateway are both of production or both of the sandbox.",
        "验签失败：请在支付宝开放平台上传与应用私钥配对的应用公钥，并确认 app_id 与网关同属正式环境或沙箱环境。",
    ),
    "invalid-app-id": Explanation(
        "Alipay does not know this app id. Check app_id, and that gateway and app id are of the same environment.",
        "无效的 app_id：请检查 app_id，并确认网关与应用属于同一环境（正式或沙箱）。",
    ),
    "missing-signature-config": Explanation(
        "No key is configured for this app. Set up the interface signing method (RSA2) on the Alipay open platform.",
        "应用未配置接口加签方式：请在支付宝开放平台设置 RSA2 密钥或证书。",
    ),
    "invalid-timestamp": Explanation(
        "The timestamp was refused. Set this server's clock right (NTP).",
        "时间戳无效：请校准服务器时间（NTP）。",
    ),
    "invalid-signature-type": Explanation(
        "The app is not set up for RSA2. Choose RSA2 as the signing method on the Alipay open platform.",
        "签名类型不符：请在支付宝开放平台将应用的加签方式设为 RSA2。",
    ),
    "missing-app-cert-sn": Explanation(
        "This app uses certificates. Change the merchant account to mode certificate, with its three files.",
        "该应用使用证书模式：请将商户账号改为 certificate 模式并上传三个证书。",
    ),
    "app-cert-expired": Explanation(
        "The application certificate has expired. Download a new one from the open platform and replace app_cert.",
        "应用公钥证书已过期：请在支付宝开放平台更新证书并替换 app_cert。",
    ),
    "app-cert-not-exist": Explanation(
        "Alipay does not know the application certificate. Upload again the one that was downloaded for this app id.",
        "应用公钥证书不存在：请使用该 app_id 下载的应用公钥证书。",
    ),
    "invalid-app-cert-sn": Explanation(
        "The application certificate is not this app's. Use the one downloaded for this app id.",
        "应用公钥证书与 app_id 不匹配：请使用该应用下载的证书。",
    ),
    "invalid-alipay-root-cert-sn": Explanation(
        "The Alipay root certificate is outdated. Download alipayRootCert.crt again and replace alipay_root_cert.",
        "支付宝根证书序列号无效：请重新下载 alipayRootCert.crt 并替换。",
    ),
    "suspected-attack": Explanation(
        "Alipay took a value for an attack. Keep words such as subject, out_trade_no or total_fee out of the product "
        "name and the return address.",
        "请求被判定为可疑攻击：商品名称和返回地址中请勿包含 subject、out_trade_no、total_fee 等字样。",
    ),
    "not-online-app": Explanation(
        "The app is not online yet. Submit it for review on the Alipay open platform and put it online.",
        "应用尚未上线：请在支付宝开放平台提交审核并上线应用。",
    ),
    "insufficient-isv-permissions": Explanation(
        "The app may not call this. Add the payment ability to the app, sign the product, and put the app online.",
        "应用没有该接口权限：请为应用添加相应支付能力、完成产品签约并上线。",
    ),
    "insufficient-user-permissions": Explanation(
        "The merchant has not granted this. Let the merchant authorise the app again and replace app_auth_token.",
        "商户授权不足：请让商户重新授权并更新 app_auth_token。",
    ),
    "invalid-app-auth-token": Explanation(
        "The authorisation token is not valid. Let the merchant authorise the app again and replace app_auth_token.",
        "应用授权令牌无效：请让商户重新授权并更新 app_auth_token。",
    ),
    "app-auth-token-time-out": Explanation(
        "The authorisation has expired. Let the merchant authorise the app again and replace app_auth_token.",
        "应用授权令牌已过期：请让商户重新授权并更新 app_auth_token。",
    ),
    "app-auth-token-not-exist": Explanation(
        "The authorisation was cancelled. Let the merchant authorise the app again and replace app_auth_token.",
        "应用授权已取消：请让商户重新授权并更新 app_auth_token。",
    ),
    "app-call-limited": Explanation(
        "The app calls Alipay too often. Wait a moment and try again.",
        "应用调用次数超限：请稍后再试。",
    ),
    "method-call-limited": Explanation(
        "This interface is called too often. Wait a moment and try again.",
        "接口调用次数超限：请稍后再试。",
    ),
    # Trades: creating
    "INVALID_PARAMETER": Explanation(
        "Alipay refused a field of the request; its message names which one.",
        "请求参数无效：请根据支付宝返回的信息检查对应字段。",
    ),
    "ACCESS_FORBIDDEN": Explanation(
        "The merchant may not use this way to pay. Sign the product on the Alipay merchant platform.",
        "无权使用该支付产品：请在支付宝商家平台完成产品签约。",
    ),
    "EXIST_FORBIDDEN_WORD": Explanation(
        "The product name holds a forbidden word. Change it.",
        "商品名称包含违禁词：请修改商品名称。",
    ),
    "PARTNER_ERROR": Explanation(
        "The app is not set up for this merchant. Check app_id and its binding to the merchant.",
        "应用 APP_ID 填写错误或未绑定商户：请检查 app_id 及其绑定关系。",
    ),
    "TOTAL_FEE_EXCEED": Explanation(
        "The amount is above what this merchant may take at once. Pay in parts or ask Alipay to raise the limit.",
        "订单金额超过限额：请拆分支付或联系支付宝提高限额。",
    ),
    "CONTEXT_INCONSISTENT": Explanation(
        "This payment number was already used with other details. Start a new payment.",
        "该商户订单号已用于其他交易信息：请重新发起支付。",
    ),
    "TRADE_HAS_SUCCESS": Explanation(
        "This payment number is already paid. Do not pay again; the result is being asked for.",
        "交易已支付成功：请勿重复支付，系统正在查询结果。",
    ),
    "TRADE_HAS_CLOSE": Explanation(
        "This payment is closed. Start a new payment.",
        "交易已关闭：请重新发起支付。",
    ),
    "BUYER_SELLER_EQUAL": Explanation(
        "Payer and receiver are the same Alipay account. Pay with another account.",
        "买家和卖家不能是同一账号：请更换支付账号。",
    ),
    "SELLER_BEEN_BLOCKED": Explanation(
        "The merchant's Alipay account is blocked. Contact Alipay customer service.",
        "商家账号被冻结：请联系支付宝客服处理。",
    ),
    "INVALID_STORE_ID": Explanation(
        "The store id is not valid. Check the store on the Alipay merchant platform.",
        "商户门店编号无效：请在支付宝商家平台检查门店信息。",
    ),
    "BEYOND_PAY_RESTRICTION": Explanation(
        "The merchant's daily takings limit is reached. Try again tomorrow or ask Alipay to raise the limit.",
        "商户收款额度超限：请次日再试或联系支付宝提升额度。",
    ),
    "RISK_MERCHANT_IP_NOT_EXIST": Explanation(
        "Alipay's risk control wants the payer's network address, which was not sent. Contact Alipay customer service.",
        "风控要求提供创建交易的 IP：请联系支付宝客服处理。",
    ),
    "APPLY_PC_MERCHANT_CODE_ERROR": Explanation(
        "Alipay could not issue a QR code for this number. Start a new payment.",
        "支付宝未能生成二维码：请重新发起支付。",
    ),
    "MERCHANT_STATUS_NOT_NORMAL": Explanation(
        "The merchant's contract is not in force; products unused for three months go to sleep. Activate it on the "
        "Alipay merchant platform.",
        "商户协议状态非正常（超过三个月未使用会休眠）：请在支付宝商家平台重新激活产品。",
    ),
    "NOW_TIME_AFTER_EXPIRE_TIME_ERROR": Explanation(
        "The payment had expired before it reached Alipay. Start a new payment, and check this server's clock.",
        "订单已超过失效时间：请重新发起支付，并检查服务器时间。",
    ),
    "PRODUCT_AMOUNT_LIMIT_ERROR": Explanation(
        "The amount is outside what this product allows. Change the amount or the contract.",
        "金额超出产品限额：请调整金额或产品签约。",
    ),
    "SUB_MERCHANT_CREATE_FAIL": Explanation(
        "The sub-merchant could not be used. Check the merchant's data at Alipay.",
        "二级商户创建失败：请检查商户在支付宝的资料。",
    ),
    # Trades: asking and closing
    "TRADE_NOT_EXIST": Explanation(
        "Alipay has no trade of this number yet: the payer has not opened the payment.",
        "交易不存在：付款人尚未扫码或登录支付页面。",
    ),
    "TRADE_STATUS_ERROR": Explanation(
        "The trade's state does not allow this. It may be paid; the result is being asked for.",
        "交易状态不允许该操作：可能已支付，系统正在查询结果。",
    ),
    "REASON_TRADE_STATUS_INVALID": Explanation(
        "The trade's state does not allow this. It may be paid; the result is being asked for.",
        "交易状态异常：可能已支付，系统正在查询结果。",
    ),
    "REASON_ILLEGAL_STATUS": Explanation(
        "The trade's state does not allow this. It may be paid; the result is being asked for.",
        "交易状态不合法：可能已支付，系统正在查询结果。",
    ),
    "TRADE_HAS_FINISHED": Explanation(
        "The trade is finished: it is paid and can no longer be refunded.",
        "交易已完结：已支付且不可退款。",
    ),
    # Agreements: asking, cancelling, putting off
    "USER_AGREEMENT_NOT_EXIST": Explanation(
        "Alipay has no such agreement: the payer has not signed it yet, or it is over.",
        "协议不存在：用户尚未签约或已解约。",
    ),
    "AGREEMENT_NOT_EXIST": Explanation(
        "Alipay has no such agreement: the payer has not signed it yet, or it is over.",
        "协议不存在：用户尚未签约或已解约。",
    ),
    "AGREEMENT_HAS_UNSIGNED": Explanation(
        "The agreement is cancelled already. A new one has to be signed.",
        "协议已解约：如需继续扣款请重新签约。",
    ),
    "USER_AGREEMENT_STATUS_NOT_NORMAL": Explanation(
        "The agreement is not in force, so that it cannot be cancelled now. It is being asked about.",
        "协议状态不正常，暂不能解约：系统正在查询协议状态。",
    ),
    "USER_AGREEMENT_QUERY_FAIL": Explanation(
        "Alipay could not look up the agreement. Try again later.",
        "支付宝查询用户协议失败：请稍后再试。",
    ),
    "USER_AGREEMENT_UNSIGN_FAIL": Explanation(
        "Alipay could not cancel the agreement. Try again later, or let the payer cancel it in Alipay.",
        "支付宝解约失败：请稍后再试，或请用户在支付宝中解约。",
    ),
    "ASYNC_UNSIGN_CAN_NOT_REJECT": Explanation(
        "The agreement is being cancelled already. Wait for it to end.",
        "协议正在解约中：请等待完成。",
    ),
    "MERCHANT_AGREEMENT_IS_NOT_EXIST": Explanation(
        "The merchant has no contract for agreements. Sign the product on the Alipay merchant platform, and check "
        "cycle_product.",
        "商户协议不存在：请在支付宝商家平台签约扣款产品并检查 cycle_product。",
    ),
    "MERCHANT_STATUS_IS_NOT_NORMAL": Explanation(
        "The merchant's contract is not in force. Activate the product on the Alipay merchant platform.",
        "商户协议状态非正常：请在支付宝商家平台重新激活产品。",
    ),
    "PRODUCT_CODE_NOT_SUPPORTED_ERROR": Explanation(
        "The merchant's contract is for another product. Check cycle_product of the merchant account.",
        "产品码不受支持：请检查商户账号的 cycle_product。",
    ),
    "USER_NOT_EXIST_ERROR": _NO_SUCH_PAYER,
    "USER_NOT_EXSIT_ERROR": _NO_SUCH_PAYER,
    "AUTHOREE_IS_NOT_MATCH": Explanation(
        "The agreement was signed with another merchant or app. Check app_id of the merchant account.",
        "被授权方不匹配：该协议由其他商户或应用签约，请检查 app_id。",
    ),
    "LOGONID_IS_REPEATED": Explanation(
        "Several Alipay accounts go by this login. Ask by the agreement's number.",
        "支付宝登录号重复：请使用协议号查询。",
    ),
    "ILLEGAL_PARAMS": Explanation(
        "Alipay refused a field of the request; its message names which one.",
        "请求参数不合法：请根据支付宝返回的信息检查对应字段。",
    ),
    "ILLEGAL_EXECUTION_TIME": Explanation(
        "Alipay does not take this date: a plan can only be put off to a later day. Choose one.",
        "扣款日期不合法：只能延后扣款计划，请选择更晚的日期。",
    ),
    "ILLEGAL_AGREEMENT": Explanation(
        "The agreement's plan cannot be changed: it is not in force, or was put off too often.",
        "协议不支持修改扣款计划：协议未生效或修改次数已用完。",
    ),
}

# What a refusal means when money was to be given back, where that differs or only happens then.
_OF_REFUNDS: dict[str, Explanation] = {
    "SELLER_BALANCE_NOT_ENOUGH": Explanation(
        "The merchant's Alipay balance does not cover the refund. Top it up, then ask for a new refund.",
        "商户支付宝账户余额不足：请充值后重新发起退款。",
    ),
    "REASON_TRADE_REFUND_FEE_ERR": Explanation(
        "The amount is above what this trade can still give back. Parts of it may have been refunded at Alipay itself; "
        "compare with the merchant platform.",
        "退款金额超过该交易的可退金额：可能已在支付宝后台退过款，请在商家平台核对。",
    ),
    "REFUND_AMT_NOT_EQUAL_TOTAL": Explanation(
        "The amount is above the trade's total, or the trade can only be refunded in full. Check the amount at Alipay.",
        "退款金额超出订单总额，或该交易只能全额退款：请核对退款金额。",
    ),
    "DISCORDANT_REPEAT_REQUEST": Explanation(
        "This refund number was already used with another amount. Compare with the Alipay merchant platform.",
        "该退款请求号已用于另一退款金额：请在支付宝商家平台核对。",
    ),
    "TRADE_HAS_CLOSE": Explanation(
        "The trade is closed at Alipay: all of it was given back already, or it was never paid.",
        "交易已关闭：可能已全额退款，或从未支付。",
    ),
    "TRADE_HAS_FINISHED": Explanation(
        "The time in which Alipay gives money back is over. Return it to the buyer in another way.",
        "交易已完结，超过可退款期限：请通过其他方式退还买家。",
    ),
    "TRADE_NOT_EXIST": Explanation(
        "Alipay has no trade of this number for this account. Check that app_id and gateway are as when it was paid.",
        "交易不存在：请确认 app_id 与网关和收款时一致。",
    ),
    "TRADE_STATUS_ERROR": Explanation(
        "The trade's state does not allow a refund: to Alipay it is not paid.",
        "交易状态不允许退款：该交易在支付宝未支付成功。",
    ),
    "REASON_TRADE_STATUS_INVALID": Explanation(
        "The trade's state does not allow a refund: to Alipay it is not paid.",
        "交易状态异常，不允许退款：请在支付宝商家平台核对。",
    ),
    "TRADE_NOT_ALLOW_REFUND": Explanation(
        "Alipay does not refund this trade; the product's contract or the buyer's way to pay excludes it.",
        "该交易不允许退款：请检查产品签约内容或联系支付宝客服。",
    ),
    "NOT_ALLOW_PARTIAL_REFUND": Explanation(
        "This trade can only be refunded in full. Ask for a refund of the whole amount.",
        "该交易不支持部分退款：请全额退款。",
    ),
    "ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND": Explanation(
        "The trade was paid with a voucher that cannot be refunded. Return the money to the buyer in another way.",
        "该交易使用的券不允许退款：请通过其他方式退还买家。",
    ),
    "REASON_TRADE_BEEN_FREEZEN": Explanation(
        "Alipay has frozen the trade, perhaps for a complaint. Settle that on the merchant platform first.",
        "交易被冻结（可能存在投诉）：请先在支付宝商家平台处理。",
    ),
    "BUYER_NOT_EXIST": Explanation(
        "The buyer's Alipay account no longer exists. Return the money to the buyer in another way.",
        "买家支付宝账户不存在：请通过其他方式退还买家。",
    ),
    "BUYER_ENABLE_STATUS_FORBID": Explanation(
        "The buyer's Alipay account is in a state that takes no money. Let the buyer contact Alipay, then ask again.",
        "买家支付宝账户状态异常：请买家联系支付宝后重新发起退款。",
    ),
    "BUYER_ERROR": Explanation(
        "The buyer's Alipay account cannot take the refund. Let the buyer contact Alipay, then ask again.",
        "买家账户异常：请买家联系支付宝后重新发起退款。",
    ),
    "REFUND_CHARGE_ERROR": Explanation(
        "Alipay could not give back its fee with the refund. Ask again later, or contact Alipay customer service.",
        "退还手续费失败：请稍后重新发起退款或联系支付宝客服。",
    ),
    "TRADE_SETTLE_ERROR": Explanation(
        "The trade's money was divided or settled in a way that keeps it from being refunded. Contact Alipay.",
        "交易结算异常，无法退款：请联系支付宝客服。",
    ),
    "REFUNDALLOC_UNAUTH_LIMIT": Explanation(
        "Those who received a share of this trade have not agreed to give it back. Let them authorise it at Alipay.",
        "分账接收方未授权退分账：请其在支付宝完成授权。",
    ),
    "REFUND_ACCOUNT_NOT_EXIST": Explanation(
        "The account the refund should come from or go to does not exist. Contact Alipay customer service.",
        "退款账户不存在：请联系支付宝客服。",
    ),
    "ENTERPRISE_PAY_BIZ_ERROR": Explanation(
        "The buyer's enterprise account refused the refund. Let the buyer's company ask Alipay.",
        "企业支付业务异常：请买家所在企业联系支付宝处理。",
    ),
    "ACCESS_FORBIDDEN": Explanation(
        "The merchant may not refund with this app. Sign the product on the Alipay merchant platform.",
        "无权调用退款接口：请在支付宝商家平台完成产品签约。",
    ),
    "PARTNER_ERROR": Explanation(
        "The app is not set up for the merchant who was paid. Check app_id and its binding to the merchant.",
        "应用 APP_ID 与收款商户不匹配：请检查 app_id 及其绑定关系。",
    ),
}

_BY_CODE: dict[str, Explanation] = {
    "20000": _BY_SUB_CODE["unknow-error"],
    "20001": Explanation(
        "The authorisation is not sufficient. Let the merchant authorise the app again and replace app_auth_token.",
        "授权权限不足：请让商户重新授权并更新 app_auth_token。",
    ),
    "40001": Explanation(
        "Alipay misses a required parameter; its message names which one.",
        "缺少必选参数：请根据支付宝返回的信息检查。",
    ),
    "40002": Explanation(
        "Alipay refused a parameter; its message names which one.",
        "非法的参数：请根据支付宝返回的信息检查。",
    ),
    "40003": Explanation(
        "A condition for this call is not met; Alipay's message names which one.",
        "条件异常：请根据支付宝返回的信息检查应用配置。",
    ),
    "40005": Explanation("Alipay is called too often. Wait a moment and try again.", "调用频次超限：请稍后再试。"),
    "40006": Explanation(
        "The app may not do this. Sign the product, add the ability to the app and put the app online.",
        "权限不足：请完成产品签约、为应用添加能力并上线。",
    ),
}

_OTHERWISE = Explanation(
    "Alipay refused the request. Its own code and message say why.",
    "支付宝拒绝了请求：请根据其返回的错误码和信息处理。",
)


def last_part(sub_code: str) -> str:
    """The part of a code that is spelt alike everywhere: ACQ.TRADE_NOT_EXIST → TRADE_NOT_EXIST."""
    return sub_code.rpartition(".")[2]


def explain(code: str, sub_code: str, *, refunding: bool = False) -> Explanation:
    """What a refusal means; every code has an explanation, an unknown one a general sentence."""
    if refunding and (of_refunds := _OF_REFUNDS.get(last_part(sub_code))):
        return of_refunds
    return _BY_SUB_CODE.get(last_part(sub_code)) or _BY_CODE.get(code) or _OTHERWISE
