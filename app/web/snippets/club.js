import { connect, send } from "./page.js";

const FIELDS = `id status nextDeductionOn version failure { explanationZh }
  action { ... on Redirect { url deepLink } ... on QrCode { codeUrl deepLink } }
  deductions(limit: 24) { dueOn price status orderId failure { explanationZh } }`;

/** input: orderId, price, subject, intervalDays, scene, idempotencyKey …; with payNow the order is paid while signing. */
export async function join(api, token, input) {
  const start = `mutation ($input: StartCyclePaymentInput!) { startCyclePayment(input: $input) { ${FIELDS} } }`;
  return (await send(api, token, start, { input })).startCyclePayment;
}

/** Calls onCycle with the present state, then with every change: signed, each deduction, paused, over. Returns its end. */
export function watchCycle(api, token, cycleId, onCycle) {
  const client = connect(api, token);
  const query = `subscription ($id: ID!) { cyclePayment(id: $id) { ${FIELDS} } }`;
  return client.subscribe(
    { query, variables: { id: cycleId } },
    { next: ({ data }) => data && onCycle(data.cyclePayment), error: console.error, complete: () => client.dispose() },
  );
}

/** What the payer is shown: the link for Alipay (on a desktop as a QR code) until it is signed, then the history. */
export function shown({ status, action, nextDeductionOn, deductions }) {
  if (status === "PENDING") return { sign: action && { link: action.deepLink, code: action.url ?? action.codeUrl } };
  const words = { PAID: "已扣款", FAILED: "未扣成", SKIPPED: "已跳过" };
  const line = ({ dueOn, price, status, failure }) =>
    `${dueOn} ¥${price} ${words[status] ?? "扣款中"}${failure ? `：${failure.explanationZh}` : ""}`;
  return { next: status === "ACTIVE" ? nextDeductionOn : null, history: deductions.map(line) };
}
