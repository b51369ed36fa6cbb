/** What the club's page asks of the API about cycle payments, and the Chinese words for what it answers. */
import type { Payment } from "./payment";

export interface Failure {
  code: string;
  providerCode: string | null;
  providerMessage: string | null;
  explanationZh: string;
}

/** One due date. Its attempts are those of the cycle's payments that are about its order. */
export interface Deduction {
  id: string;
  dueOn: string;
  sequence: number;
  price: string;
  status: "WAITING" | "CHARGING" | "PAID" | "FAILED" | "SKIPPED";
  orderId: string | null;
  nextAttemptAt: string | null;
  failure: { explanationZh: string } | null;
}

/** A payment made while signing, or one attempt to deduct. */
export interface Attempt {
  id: string;
  orderId: string;
  amount: string;
  status: Payment["status"];
  final: boolean;
  checking: boolean;
  createdAt: string;
  failure: { explanationZh: string } | null;
}

export interface CycleSummary {
  id: string;
  orderId: string;
  subject: string;
  price: string;
  intervalDays: number;
  status: "PENDING" | "ACTIVE" | "SUSPENDED" | "CANCELLED" | "EXPIRED";
  cancelling: boolean;
  nextDeductionOn: string | null;
}

export interface Cycle extends CycleSummary {
  maxPrice: string;
  scene: string;
  suspendedFor: "PAUSE" | "FAILURES" | "RULE" | null;
  agreementNo: string | null;
  firstDeductionOn: string;
  paidDeductions: number;
  failure: Failure | null;
  signedAt: string | null;
  endedAt: string | null;
  expiresAt: string;
  version: number;
  action:
    | { __typename: "Redirect"; url: string; deepLink: string | null }
    | { __typename: "QrCode"; codeUrl: string; deepLink: string | null }
    | null;
  upcoming: { dueOn: string; price: string }[];
  deductions: Deduction[];
  payments: Attempt[];
}

/** What Alipay's contract with the merchant calls this kind of business. */
export const SCENE = "INDUSTRY|DIGITAL_MEDIA";

const SUMMARY = "id orderId subject price intervalDays status cancelling nextDeductionOn";
const ATTEMPT_FIELDS = " id orderId amount status final checking createdAt failure { explanationZh }";
const FIELDS = `
  ${SUMMARY} maxPrice scene suspendedFor agreementNo firstDeductionOn paidDeductions
  failure { code providerCode providerMessage explanationZh }
  signedAt endedAt expiresAt version
  action { __typename ... on Redirect { url deepLink } ... on QrCode { codeUrl deepLink } }
  upcoming(limit: 3) { dueOn price }
  deductions(limit: 60) { id dueOn sequence price status orderId nextAttemptAt failure { explanationZh } }
  payments {${ATTEMPT_FIELDS} }`;

const change = (name: string) => `mutation Change($id: ID!) { ${name}(id: $id) {${FIELDS} } }`;

export const START = `mutation Start($input: StartCyclePaymentInput!) { startCyclePayment(input: $input) {${FIELDS} } }`;
export const PAUSE = change("pauseCyclePayment");
export const RESUME = change("resumeCyclePayment");
export const CANCEL = change("cancelCyclePayment");
export const ASK = change("syncCyclePayment");
export const MINE = `query Mine { myCyclePayments(limit: 10) { ${SUMMARY} } }`;
export const WATCH_ATTEMPT = `subscription Attempt($id: ID!) { payment(id: $id) {${ATTEMPT_FIELDS} } }`;
export const WATCH_CYCLE = `subscription Cycle($id: ID!) { cyclePayment(id: $id) {${FIELDS} } }`;

export const CYCLE_STATUS: Record<CycleSummary["status"], string> = {
  PENDING: "待签约",
  ACTIVE: "生效中",
  SUSPENDED: "已暂停",
  CANCELLED: "已取消",
  EXPIRED: "已失效",
};

export const DEDUCTION_STATUS: Record<Deduction["status"], string> = {
  WAITING: "准备中",
  CHARGING: "扣款中",
  PAID: "已扣款",
  FAILED: "未扣成",
  SKIPPED: "已跳过",
};

export const isLive = (cycle: CycleSummary) => ["PENDING", "ACTIVE", "SUSPENDED"].includes(cycle.status);

/** "2026-12-10" → "2026年12月10日". */
export function day(date: string): string {
  const [year, month, number] = date.split("-").map(Number);
  return `${year}年${month}月${number}日`;
}

const shanghai = new Intl.DateTimeFormat("zh-CN", {
  timeZone: "Asia/Shanghai",
  month: "numeric",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  hour12: false,
});

/** An instant as Shanghai's calendar and clock have it, as due dates are. */
export const moment = (instant: string) => shanghai.format(new Date(instant));
