/** @jsxImportSource preact */
/** Giving one payment back: how much of it is left, the form, and what became of each refund. */
import { useRef, useState } from "preact/hooks";
import { newKey, Refused, send, sendOnce } from "./api";
import { Amount } from "./choice";
import { givenBack, type Payment, type Refund, REFUND_FIELDS, REFUND_STATUS } from "./payment";

const REFUND = `mutation Refund($input: RefundPaymentInput!) { refundPayment(input: $input) {${REFUND_FIELDS} } }`;
const SYNC_REFUND = `mutation SyncRefund($id: ID!) { syncRefund(id: $id) {${REFUND_FIELDS} } }`;

export function Refunding(props: { payment: Payment; title: string; refunds: Refund[]; onRefund: (refund: Refund) => void }) {
  const { payment } = props;
  const { done, underway } = givenBack(payment);
  const sums: [string, string, string][] = [
    ["实付", payment.paidAmount ?? "0.00", "paid"],
    ["已退", done ?? "0.00", "refunded"],
    ["退款中", underway ?? "0.00", "underway"],
    ["可退", payment.refundableAmount, "refundable"],
  ];
  return (
    <div class="refunding" data-status={payment.status}>
      <div>
        <h1 id="refund-title">退款</h1>
        <p class="note">
          订单 {payment.orderId} · {props.title} · <code>{payment.outTradeNo}</code>
        </p>
      </div>
      <dl class="sums" aria-live="polite">
        {sums.map(([name, amount, id]) => (
          <div key={id}>
            <dt>{name}</dt>
            <dd id={id}>
              <Amount value={amount} />
            </dd>
          </div>
        ))}
      </dl>
      <Form {...props} />
      <section aria-labelledby="refunds-title">
        <h2 id="refunds-title">退款记录</h2>
        <ol class="refunds" aria-live="polite">
          {props.refunds.map((refund) => (
            <Line key={refund.id} refund={refund} onRefund={props.onRefund} />
          ))}
          {!props.refunds.length && <li class="note">还没有退过。</li>}
        </ol>
      </section>
    </div>
  );
}

function Form({ payment, onRefund }: { payment: Payment; onRefund: (refund: Refund) => void }) {
  const [amount, setAmount] = useState("");
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState<string>();
  // Kept until there is an answer: the same wish sent again is the same refund.
  const asked = useRef<{ wish: string; key: string } | undefined>(undefined);
  const nothingLeft = /^[0.]+$/.test(payment.refundableAmount);

  async function refund() {
    const wish = { paymentId: payment.id, amount, ...(reason && { reason }) };
    const text = JSON.stringify(wish);
    if (asked.current?.wish !== text) asked.current = { wish: text, key: newKey() };
    setBusy(true);
    setTrouble(undefined);
    try {
      const input = { ...wish, idempotencyKey: asked.current.key };
      onRefund((await sendOnce<{ refundPayment: Refund }>(REFUND, input, setTrouble, "clerk")).refundPayment);
      asked.current = undefined;
      setTrouble(undefined);
      setAmount("");
      setReason("");
    } catch (error) {
      if (error instanceof Refused) asked.current = undefined;
      setTrouble(error instanceof Error ? error.message : String(error));
    }
    setBusy(false);
  }

  return (
    <form
      aria-busy={busy}
      onSubmit={(event) => {
        event.preventDefault();
        if (!busy) void refund();
      }}
    >
      <fieldset disabled={nothingLeft}>
        <div class="field">
          <label for="amount">金额（元）</label>
          <div class="beside">
            <input
              id="amount"
              value={amount}
              inputMode="decimal"
              autoComplete="off"
              required
              readOnly={busy}
              maxLength={14}
              pattern="\d+(\.\d{1,2})?"
              title="写成 12.30 这样"
              placeholder={payment.refundableAmount}
              onInput={(event) => setAmount(event.currentTarget.value.trim())}
            />
            <button class="second" type="button" id="all" onClick={() => setAmount(payment.refundableAmount)}>
              全部
            </button>
          </div>
        </div>
        <div class="field">
          <label for="reason">原因（可不填，顾客可能会看到）</label>
          <input id="reason" value={reason} readOnly={busy} maxLength={80} autoComplete="off" onInput={(event) => setReason(event.currentTarget.value)} />
        </div>
        <p class="trouble" role="alert">
          {trouble}
        </p>
        <button class="main" type="submit" id="refund" disabled={nothingLeft}>
          {nothingLeft ? "没有可退的了" : busy ? "正在退款…" : "退款"}
        </button>
      </fieldset>
    </form>
  );
}

function Line({ refund, onRefund }: { refund: Refund; onRefund: (refund: Refund) => void }) {
  const [trouble, setTrouble] = useState<string>();
  const look = refund.status === "REFUNDED" ? "paid" : refund.status === "FAILED" ? "failed" : "";
  const ask = () =>
    send<{ syncRefund: Refund }>(SYNC_REFUND, { id: refund.id }, "clerk").then(
      ({ syncRefund }) => onRefund(syncRefund),
      (error: Error) => setTrouble(error.message),
    );
  return (
    <li data-refund={refund.id} data-status={refund.status}>
      <b>
        <Amount value={refund.amount} />
      </b>
      <span>{refund.reason ?? "—"}</span>
      {!refund.final && (
        <button class="second" type="button" onClick={ask} aria-label={`查询 ¥${refund.amount} 的退款结果`}>
          查询
        </button>
      )}
      <span class={`chip ${look}`}>{refund.checking ? "确认中" : REFUND_STATUS[refund.status]}</span>
      <small>
        {new Date(refund.refundedAt ?? refund.createdAt).toLocaleString("zh-CN")} <code>{refund.outRefundNo}</code>
      </small>
      {(refund.failure || trouble) && <small class="bad">{trouble ?? refund.failure?.explanationZh}</small>}
    </li>
  );
}
