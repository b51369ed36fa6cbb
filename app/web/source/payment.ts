/** What the shop's pages ask of the API, and the Chinese words for what it answers. */

export interface Payment {
  id: string;
  orderId: string;
  method: string;
  amount: string;
  paidAmount: string | null;
  refundedAmount: string;
  refundableAmount: string;
  status: "PENDING" | "SUCCESSFUL" | "FAILED" | "CLOSED" | "PARTIALLY_REFUNDED" | "REFUNDED";
  final: boolean;
  checking: boolean;
  outTradeNo: string;
  transactionId: string | null;
  failure: { code: string; providerCode: string | null; providerMessage: string | null; explanationZh: string } | null;
  action:
    | { __typename: "Redirect"; url: string }
    | { __typename: "QrCode"; codeUrl: string; deepLink: string | null }
    | ({ __typename: "WechatPayParams" } & WechatPayParams)
    | { __typename: "AlipayJsapiParams" }
    | null;
  paidAt: string | null;
  expiresAt: string;
  version: number;
}

export interface Refund {
  id: string;
  paymentId: string;
  amount: string;
  outRefundNo: string;
  status: "PENDING" | "REFUNDED" | "FAILED";
  final: boolean;
  checking: boolean;
  reason: string | null;
  failure: { explanationZh: string; providerMessage: string | null } | null;
  createdAt: string;
  refundedAt: string | null;
  version: number;
}

/** What WeChat's bridge is called with. */
export interface WechatPayParams {
  appId: string;
  timeStamp: string;
  nonceStr: string;
  package: string;
  signType: string;
  paySign: string;
}

export interface Order {
  id: string;
  data: { title?: string; amount?: string | number; status?: string };
}

export const PAYMENT_FIELDS = `
  id orderId method amount paidAmount refundedAmount refundableAmount status final checking outTradeNo transactionId
  failure { code providerCode providerMessage explanationZh }
  action {
    __typename
    ... on Redirect { url }
    ... on QrCode { codeUrl deepLink }
    ... on WechatPayParams { appId timeStamp nonceStr package signType paySign }
  }
  paidAt expiresAt version`;

export const REFUND_FIELDS = `
  id paymentId amount outRefundNo status final checking reason failure { explanationZh providerMessage }
  createdAt refundedAt version`;

export const CREATE = `mutation Pay($input: CreatePaymentInput!) { createPayment(input: $input) {${PAYMENT_FIELDS} } }`;
export const SYNC = `mutation Sync($id: ID!) { syncPayment(id: $id) {${PAYMENT_FIELDS} } }`;
export const CLOSE = `mutation Close($id: ID!) { closePayment(id: $id) {${PAYMENT_FIELDS} } }`;
export const READ_ORDER = `query Order($id: ID!) { order(id: $id) { id data } }`;
export const EXPLAIN = `query Explain($message: String!) { explainWechatError(message: $message) { explanationZh } }`;
export const PAYMENTS_OF_ORDER = `query Payments($orderId: ID!) { payments(orderId: $orderId) {${PAYMENT_FIELDS} } }`;
export const WATCH_PAYMENT = `subscription Payment($id: ID!) { payment(id: $id) {${PAYMENT_FIELDS} } }`;
export const WATCH_REFUNDS = `subscription Refunds($id: ID!) { refunds(paymentId: $id) {${REFUND_FIELDS} } }`;
export const WATCH_ORDER = `subscription Order($id: ID!) { order(id: $id) { id data } }`;

/** Name and hint of each way to pay. */
export const METHODS: Record<string, { name: string; hint: string }> = {
  WECHAT_JSAPI: { name: "微信内支付", hint: "在微信里打开的网页" },
  WECHAT_NATIVE: { name: "微信扫码", hint: "显示二维码，用微信扫" },
  WECHAT_H5: { name: "微信手机网页", hint: "从手机浏览器唤起微信" },
  WECHAT_MINI_PROGRAM: { name: "微信小程序", hint: "小程序里的支付参数" },
  WECHAT_CLOUD: { name: "微信云支付", hint: "云托管下单，不用密钥" },
  ALIPAY_QR: { name: "支付宝扫码", hint: "显示二维码，用手机扫" },
  ALIPAY_WAP: { name: "支付宝手机网页", hint: "在本页打开，付完回来" },
  ALIPAY_PAGE: { name: "支付宝电脑网页", hint: "在新标签页打开收银台" },
  HUIFU_ALIPAY_QR: { name: "支付宝扫码（斗拱）", hint: "聚合通道，显示二维码" },
  HUIFU_UNIONPAY_QR: { name: "云闪付扫码（斗拱）", hint: "聚合通道，显示二维码" },
};

/** Ways whose cashier opens in the same tab, because a phone has no place for a second one. */
export const SAME_TAB = new Set(["ALIPAY_WAP", "WECHAT_H5"]);
export const NEW_TAB = new Set(["ALIPAY_PAGE"]);

export const ORDER_STATUS: Record<string, string> = {
  unpaid: "待付款",
  paid: "已付款",
  failed: "付款失败",
  refunded: "已退款",
};

/** Money came in, and may have gone back since. */
export const PAID = new Set<Payment["status"]>(["SUCCESSFUL", "PARTIALLY_REFUNDED", "REFUNDED"]);

export const REFUND_STATUS: Record<Refund["status"], string> = { PENDING: "退款中", REFUNDED: "已退款", FAILED: "退款未成功" };

const fen = (amount: string) => Number(yuan(amount).replace(".", ""));

/** What went back, and what is on its way back, as yuan; null is nothing. */
export function givenBack(payment: Payment): { done: string | null; underway: string | null } {
  const done = fen(payment.refundedAmount);
  const underway = fen(payment.paidAmount ?? "0") - done - fen(payment.refundableAmount);
  const text = (amount: number) => (amount > 0 ? `${Math.floor(amount / 100)}.${String(amount % 100).padStart(2, "0")}` : null);
  return { done: text(done), underway: text(underway) };
}

/** The newer of two states of one row: what arrives late or twice changes nothing. */
export function newer<T extends { id: string; version: number }>(known: Record<string, T>, next: T): Record<string, T> {
  return (known[next.id]?.version ?? -1) < next.version ? { ...known, [next.id]: next } : known;
}

/** "39.9" → "39.90": the order's own column may print an amount either way. */
export function yuan(amount: string | number | undefined): string {
  const [whole = "0", part = ""] = String(amount ?? "0").split(".");
  return `${whole}.${part.padEnd(2, "0")}`;
}
