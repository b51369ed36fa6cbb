/** @jsxImportSource preact */
/** The part of the page that shows what happens underneath: arrivals, and how to build the same. */
import type { Session } from "./session";

export interface Entry {
  at: Date;
  kind: "支付" | "退款" | "订单" | "连接";
  text: string;
  tone?: "good" | "bad" | "quiet" | undefined;
}

const clock = new Intl.DateTimeFormat("zh-CN", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hour12: false,
});

export function EventLog({ entries }: { entries: Entry[] }) {
  return (
    <section class="panel log" aria-labelledby="log-title">
      <h2 id="log-title">实时事件</h2>
      <ol tabIndex={0} aria-label="到达的事件，新的在上">
        {entries.length === 0 && <li class="quiet">下单以后，服务器推来的每一个状态都记在这里。</li>}
        {entries.map((entry, index) => (
          <li key={entries.length - index} class={entry.tone}>
            <time>{clock.format(entry.at)}</time>
            <b>{entry.kind}</b>
            <span>{entry.text}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

const STEPS: [string, string][] = [
  ["下单后调用", "mutation {\n  createPayment(input: {\n    orderId: \"10\", method: ALIPAY_QR,\n    subject: \"青瓷茶杯\", idempotencyKey: \"…\"\n  }) { id action { … on QrCode { codeUrl } } }\n}"],
  ["看着结果到来", "subscription {\n  payment(id: \"42\", untilFinal: true) {\n    status final version\n  }\n}"],
  ["后台照结果办事", "async def on_payment(result, connection):\n    if result.already_processed:\n        return\n    await connection.execute(…)"],
];

type Offered = Pick<Session, "graphiql" | "sandboxUrl" | "clerk">;

export function Integration({ graphiql, sandboxUrl, clerk, steps = STEPS }: Offered & { steps?: [string, string][] }) {
  return (
    <section class="panel" aria-labelledby="links-title">
      <h2 id="links-title">给开发者</h2>
      <nav class="links" aria-label="开发者入口">
        {graphiql && (
          <a href="/graphql">
            <b>GraphiQL</b>
            <small>示例操作，按一下就能跑</small>
          </a>
        )}
        {clerk && (
          <a href="/demo/clerk" target="_blank" rel="noopener">
            <b>店员</b>
            <small>已付订单：授权、全额或部分退款</small>
          </a>
        )}
        {sandboxUrl && (
          <a href={sandboxUrl} target="_blank" rel="noopener">
            <b>沙箱</b>
            <small>支付渠道那一头：付款、失败、重复通知</small>
          </a>
        )}
      </nav>
      <details>
        <summary>三步接入</summary>
        <ol class="steps">
          {steps.map(([name, code]) => (
            <li key={name}>
              {name}
              <pre>
                <code>{code}</code>
              </pre>
            </li>
          ))}
        </ol>
      </details>
    </section>
  );
}
