/** @jsxImportSource preact */
/** One payment, as the server's record has it, from the code on the screen to the final state. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Amount } from "./choice";
import { Countdown } from "./clock";
import { type Look, Mark } from "./mark";
import { CLOSE, givenBack, METHODS, NEW_TAB, ORDER_STATUS, type Order, PAID, type Payment, SYNC, yuan } from "./payment";
import { visitor } from "./session";

export type Stage = "choosing" | "opening" | "watching";

function lookOf(payment: Payment | undefined): { look: Look; title: string; text: string } {
  if (!payment) return { look: "checking", title: "正在读取订单", text: "马上就好。" };
  const { done, underway } = givenBack(payment);
  if (underway && PAID.has(payment.status)) {
    return { look: "waiting", title: "退款中", text: `¥${underway} 正在原路退回。` };
  }
  switch (payment.status) {
    case "SUCCESSFUL":
      return { look: "good", title: "支付成功", text: "渠道的结果已经核对，订单随之更新。" };
    case "PARTIALLY_REFUNDED":
      return { look: "good", title: "部分退款", text: `已退款 ¥${done}，原路退回。` };
    case "REFUNDED":
      return { look: "gone", title: "已全额退款", text: `已退款 ¥${done}，原路退回。` };
    case "FAILED":
      return { look: "bad", title: "支付失败", text: "没有扣款，可以换一种方式再付。" };
    case "CLOSED":
      return { look: "gone", title: "支付已关闭", text: "这笔支付不会再扣款。" };
    default:
      return payment.checking
        ? { look: "checking", title: "正在确认结果", text: "支付渠道还没有明确回答。请不要重复支付，结果会自动出现在这里。" }
        : { look: "waiting", title: "等待支付", text: "付完以后这里会自己变，不用刷新。" };
  }
}

export function Checkout(props: {
  payment: Payment | undefined;
  order: Order | undefined;
  trouble: string | undefined;
  onAsk: (operation: string, field: "syncPayment" | "closePayment") => Promise<void>;
  onCashier: (payment: Payment) => void;
  onStartOver: (keepOrder: boolean) => void;
}) {
  const { payment, order } = props;
  const { look, title, text } = lookOf(payment);
  const heading = useRef<HTMLHeadingElement>(null);
  // The keyboard and the screen reader follow the change of place.
  useEffect(() => heading.current?.focus({ preventScroll: true }), []);
  return (
    <div class={`checkout ${look}`} data-status={payment?.status ?? ""} data-checking={payment?.checking ?? false}>
      <div class="state" aria-live="polite" aria-atomic="true">
        <Mark look={look} />
        <h1 tabIndex={-1} ref={heading}>
          {title}
        </h1>
        <p>{text}</p>
      </div>
      <p class="sum">
        <Amount value={yuan(payment?.paidAmount ?? payment?.amount ?? order?.data.amount)} />
      </p>
      <div class="next">{payment && <Next {...props} payment={payment} />}</div>
      <p class="trouble" role="alert">
        {props.trouble}
      </p>
      <Facts payment={payment} order={order} />
    </div>
  );
}

/** What the payer can do now. While the answer is unknown that is never "pay again". */
function Next({ payment, onAsk, onCashier, onStartOver }: Parameters<typeof Checkout>[0] & { payment: Payment }) {
  const [busy, setBusy] = useState(false);
  const ask = (operation: string, field: "syncPayment" | "closePayment") => async () => {
    setBusy(true);
    await onAsk(operation, field);
    setBusy(false);
  };
  if (payment.status === "FAILED" || payment.status === "CLOSED") {
    return (
      <>
        {payment.failure && <Explanation failure={payment.failure} />}
        <button class="main" type="button" onClick={() => onStartOver(true)}>
          重新支付
        </button>
        <button class="plain" type="button" onClick={() => onStartOver(false)}>
          换一件商品
        </button>
      </>
    );
  }
  if (payment.final) {
    return (
      <>
        <button class="main" type="button" onClick={() => onStartOver(false)}>
          再买一件
        </button>
        <a class="plain" href="/demo/club">
          开通会员，每周自动续
        </a>
      </>
    );
  }
  return (
    <>
      {!payment.checking && <Way payment={payment} onCashier={onCashier} />}
      <div class="pair">
        <button class="second" type="button" disabled={busy} onClick={ask(SYNC, "syncPayment")}>
          查询结果
        </button>
        <button class="second" type="button" disabled={busy} onClick={ask(CLOSE, "closePayment")}>
          取消支付
        </button>
      </div>
    </>
  );
}

function Way({ payment, onCashier }: { payment: Payment; onCashier: (payment: Payment) => void }) {
  const action = payment.action;
  const { sandboxUrl } = visitor();
  if (action?.__typename === "QrCode") {
    return (
      <div class="code">
        <img src={`/demo/qr.svg?text=${encodeURIComponent(action.codeUrl)}`} width="216" height="216" alt="支付二维码" />
        <p>
          {/^https?:/.test(action.codeUrl) && (
            <a href={action.codeUrl} target="_blank" rel="noopener" id="cashier">
              在这台设备上打开
            </a>
          )}
          {/^weixin:/.test(action.codeUrl) && sandboxUrl && (
            <a href={`${sandboxUrl}/wechat/scan?code_url=${encodeURIComponent(action.codeUrl)}`} target="_blank" rel="noopener" id="cashier">
              在沙箱里扫这个码
            </a>
          )}
          {action.deepLink && !sandboxUrl && matchMedia("(pointer: coarse)").matches && <a href={action.deepLink}>打开支付宝</a>}
        </p>
      </div>
    );
  }
  if (action?.__typename === "Redirect") {
    return (
      <a class="main" href={action.url} id="cashier" {...(NEW_TAB.has(payment.method) ? { target: "_blank", rel: "noopener" } : {})}>
        打开收银台
      </a>
    );
  }
  if (action?.__typename === "WechatPayParams") {
    return (
      <button class="main" type="button" id="cashier" onClick={() => onCashier(payment)}>
        打开微信支付
      </button>
    );
  }
  return null;
}

const FAILURES: Record<string, string> = {
  PROVIDER_REJECTED: "支付渠道拒绝了这笔支付",
  PROVIDER_UNAVAILABLE: "支付渠道暂时连不上，没有发出请求",
  EXPIRED: "超过了支付时限",
};

function Explanation({ failure }: { failure: NonNullable<Payment["failure"]> }) {
  return (
    <div class="why">
      <b>{FAILURES[failure.code] ?? "没有付成"}</b>
      <span>{failure.explanationZh}</span>
      {(failure.providerMessage || failure.providerCode) && (
        <small>
          渠道原话：{failure.providerMessage} <code>{failure.providerCode ?? failure.code}</code>
        </small>
      )}
    </div>
  );
}

function Facts({ payment, order }: { payment: Payment | undefined; order: Order | undefined }) {
  const status = order?.data.status;
  const rows: [string, preact.ComponentChildren, string?][] = [
    ["商品", order?.data.title],
    ["订单", order && <span class={`chip ${status}`}>{ORDER_STATUS[status ?? ""] ?? status}</span>, "order-status"],
    ["方式", payment && (METHODS[payment.method]?.name ?? payment.method)],
    ["支付单号", payment && <code>{payment.outTradeNo}</code>],
    payment?.final || !payment
      ? ["渠道单号", payment?.transactionId && <code>{payment.transactionId}</code>]
      : ["剩余时间", <Countdown until={payment.expiresAt} />],
    ["支付时间", payment?.paidAt && new Date(payment.paidAt).toLocaleString("zh-CN")],
  ];
  // The last line, for which there is room: nothing moves when it comes.
  const given = payment && back(payment);
  if (given) rows.push(["退款", given, "given-back"]);
  return (
    <dl>
      {rows.map(([name, value, id]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd id={id}>{value || "—"}</dd>
        </div>
      ))}
    </dl>
  );
}

function back(payment: Payment): string {
  const { done, underway } = givenBack(payment);
  return [done && `已退 ¥${done}`, underway && `退款中 ¥${underway}`].filter(Boolean).join("，");
}
