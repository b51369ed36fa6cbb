/** @jsxImportSource preact */
/** One membership, as the server's record has it: from the link for signing to its last deduction. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Amount } from "./choice";
import { Countdown } from "./clock";
import { ASK, type Attempt, CANCEL, type Cycle, CYCLE_STATUS, day, type Deduction, DEDUCTION_STATUS, type Failure, isLive, moment, PAUSE, RESUME } from "./cycle";
import { type Look, Mark } from "./mark";
import { visitor } from "./session";
import { place } from "./ways";

type Act = (operation: string) => Promise<void>;

function lookOf(cycle: Cycle | undefined): { look: Look; title: string; text: string } {
  if (!cycle) return { look: "checking", title: "正在读取会员", text: "马上就好。" };
  if (cycle.cancelling) return { look: "checking", title: "正在取消", text: "不会再扣款，等支付宝确认解约。" };
  switch (cycle.status) {
    case "PENDING":
      return { look: "waiting", title: "等待签约", text: "在支付宝里签好以后，这里会自己变，不用刷新。" };
    case "ACTIVE":
      return cycle.failure
        ? { look: "bad", title: "扣款没有成功", text: "会员还在生效，会再试。" }
        : { look: "good", title: "会员生效中", text: "到期自动扣款，扣款以前会提醒。" };
    case "SUSPENDED":
      if (cycle.suspendedFor === "PAUSE") return { look: "gone", title: "已暂停", text: "暂停期间不扣款，协议还在。" };
      if (cycle.suspendedFor === "RULE") return { look: "bad", title: "需要重新签约", text: "这份协议不能再扣款，请取消以后重新开通。" };
      return { look: "bad", title: "扣款失败，已暂停", text: "恢复以后从下一个扣款日继续，错过的不补扣。" };
    case "CANCELLED":
      return { look: "gone", title: "已取消", text: "不会再扣款。" };
    default:
      return { look: "gone", title: "已失效", text: cycle.signedAt ? "协议已到期，不会再扣款。" : "没有签约，没有扣款。" };
  }
}

export function Membership(props: { cycle: Cycle | undefined; trouble: string | undefined; onAct: Act; onLeave: () => void }) {
  const { cycle } = props;
  const { look, title, text } = lookOf(cycle);
  const heading = useRef<HTMLHeadingElement>(null);
  // The keyboard and the screen reader follow the change of place.
  useEffect(() => heading.current?.focus({ preventScroll: true }), []);
  return (
    <div class={`checkout membership ${look}`} data-status={cycle?.status ?? ""} data-id={cycle?.id}>
      <div class="state" aria-live="polite" aria-atomic="true">
        <Mark look={look} />
        <h1 tabIndex={-1} ref={heading}>
          {title}
        </h1>
        <p>{text}</p>
      </div>
      <p class="sum">
        <Amount value={cycle?.price ?? "0.00"} />
        <small> / {cycle?.intervalDays ?? "—"} 天</small>
      </p>
      {cycle?.failure && isLive(cycle) && <Explanation failure={cycle.failure} />}
      <div class="next">{cycle && <Next {...props} cycle={cycle} />}</div>
      <p class="trouble" role="alert">
        {props.trouble}
      </p>
      <Facts cycle={cycle} />
      {cycle && cycle.upcoming.length > 0 && cycle.status !== "PENDING" && <Upcoming cycle={cycle} />}
      {cycle && cycle.status !== "PENDING" && <History cycle={cycle} />}
    </div>
  );
}

/** What the payer can do now. */
function Next({ cycle, onAct, onLeave }: { cycle: Cycle; onAct: Act; onLeave: () => void }) {
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const act = (operation: string) => async () => {
    setBusy(true);
    await onAct(operation);
    setBusy(false);
    setAsking(false);
  };
  if (!isLive(cycle)) {
    return (
      <button class="main" type="button" onClick={onLeave}>
        重新开通
      </button>
    );
  }
  if (cycle.cancelling) return null;
  if (cycle.status === "PENDING") {
    return (
      <>
        <Signing cycle={cycle} />
        <div class="pair">
          <button class="second" type="button" disabled={busy} onClick={act(ASK)}>
            查询结果
          </button>
          <button class="second" type="button" disabled={busy} onClick={act(CANCEL)}>
            不签了
          </button>
        </div>
      </>
    );
  }
  if (asking) return <Confirmation busy={busy} onYes={act(CANCEL)} onNo={() => setAsking(false)} />;
  const paused = cycle.status === "SUSPENDED";
  return (
    <div class={cycle.suspendedFor === "RULE" ? "next" : "pair"}>
      {cycle.suspendedFor !== "RULE" && (
        <button class="second" type="button" id={paused ? "resume" : "pause"} disabled={busy} onClick={act(paused ? RESUME : PAUSE)}>
          {paused ? "恢复" : "暂停"}
        </button>
      )}
      <button class="second" type="button" id="cancel" disabled={busy} onClick={() => setAsking(true)}>
        取消会员
      </button>
    </div>
  );
}

function Confirmation({ busy, onYes, onNo }: { busy: boolean; onYes: () => void; onNo: () => void }) {
  const no = useRef<HTMLButtonElement>(null);
  useEffect(() => no.current?.focus(), []);
  return (
    <div class="next" role="group" aria-labelledby="sure">
      <p class="note" id="sure">
        取消以后协议解除，不能恢复；想停一阵可以只暂停。
      </p>
      <div class="pair">
        <button class="second" type="button" ref={no} disabled={busy} onClick={onNo}>
          先不取消
        </button>
        <button class="second danger" type="button" id="cancel-now" disabled={busy} onClick={onYes}>
          确定取消
        </button>
      </div>
    </div>
  );
}

// What /demo/qr.svg draws; a longer link is for pressing only.
const CODE_LIMIT = 2600;

/** The link for signing. Alipay opens it in its app alone; the sandbox's page stands in for that. */
function Signing({ cycle }: { cycle: Cycle }) {
  const { action } = cycle;
  const { sandboxUrl } = visitor();
  if (!action) return <p class="note">正在准备签约链接…</p>;
  const link = action.__typename === "Redirect" ? action.url : action.codeUrl;
  const pretended = action.__typename === "Redirect" ? action.url : `${sandboxUrl}/alipay/app?link=${encodeURIComponent(action.codeUrl)}`;
  const href = sandboxUrl ? pretended : place === "phone" ? action.deepLink : null;
  const opens = place === "phone" ? {} : { target: "_blank", rel: "noopener" };
  return (
    <div class="code">
      {link.length <= CODE_LIMIT && <img class="long" src={`/demo/qr.svg?text=${encodeURIComponent(link)}`} width="264" height="264" alt="签约二维码" />}
      {href && (
        <a class="main" href={href} id="sign" {...opens}>
          {action.__typename === "Redirect" ? "打开签约页" : "去支付并签约"}
        </a>
      )}
    </div>
  );
}

function Explanation({ failure }: { failure: Failure }) {
  return (
    <div class="why" id="why">
      <span>{failure.explanationZh}</span>
      {(failure.providerMessage || failure.providerCode) && (
        <small>
          渠道原话：{failure.providerMessage} <code>{failure.providerCode ?? failure.code}</code>
        </small>
      )}
    </div>
  );
}

function Facts({ cycle }: { cycle: Cycle | undefined }) {
  const next = cycle?.nextDeductionOn ?? cycle?.firstDeductionOn;
  const rows: [string, preact.ComponentChildren, string?][] = [
    ["会员", cycle?.subject],
    ["状态", cycle && <span class={`chip ${cycle.status === "ACTIVE" ? "paid" : ""}`}>{CYCLE_STATUS[cycle.status]}</span>, "cycle-status"],
    [cycle?.status === "PENDING" ? "首次扣款" : "下次扣款", cycle && isLive(cycle) && cycle.status !== "SUSPENDED" && next && day(next), "next-deduction"],
    ["已扣款", cycle && `${cycle.paidDeductions} 次`, "paid-deductions"],
    ["每次最多", cycle && <Amount value={cycle.maxPrice} />],
    cycle?.status === "PENDING" ? ["链接剩余", <Countdown until={cycle.expiresAt} />] : ["协议号", cycle?.agreementNo && <code>{cycle.agreementNo}</code>],
  ];
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

function Upcoming({ cycle }: { cycle: Cycle }) {
  return (
    <section aria-labelledby="upcoming-title">
      <h2 id="upcoming-title">{cycle.status === "SUSPENDED" ? "恢复以后" : "接下来"}</h2>
      <ol class="deductions upcoming">
        {cycle.upcoming.map((each) => (
          <li key={each.dueOn}>
            <span>{day(each.dueOn)}</span>
            <Amount value={each.price} />
          </li>
        ))}
      </ol>
    </section>
  );
}

function History({ cycle }: { cycle: Cycle }) {
  const first = cycle.payments.filter((each) => each.orderId === cycle.orderId);
  return (
    <section aria-labelledby="history-title">
      <h2 id="history-title">扣款记录</h2>
      <ol class="deductions history" tabIndex={0} aria-label="扣款记录，新的在上" aria-live="polite">
        {cycle.deductions.map((each) => (
          <Line key={each.id} deduction={each} attempts={cycle.payments.filter((payment) => payment.orderId === each.orderId)} />
        ))}
        {first.map((each) => (
          <li key={`first-${each.id}`} data-status={each.status}>
            <span>
              签约时付款
              <small>订单 {each.orderId}</small>
            </span>
            <Amount value={each.amount} />
            <span class={`chip ${each.status === "SUCCESSFUL" ? "paid" : ""}`}>{each.status === "SUCCESSFUL" ? "已付款" : each.checking ? "确认中" : "未付款"}</span>
          </li>
        ))}
        {!cycle.deductions.length && !first.length && <li class="note">还没有扣过。</li>}
      </ol>
    </section>
  );
}

const CHIPS: Partial<Record<Deduction["status"], string>> = { PAID: "paid", FAILED: "failed" };

/** A due date with its attempts: the reasons of those that took nothing, and when the next one comes. */
function Line({ deduction, attempts }: { deduction: Deduction; attempts: Attempt[] }) {
  const refused = attempts.filter((each) => each.failure);
  const reasons = [...new Set(refused.map((each) => each.failure?.explanationZh))];
  const skipped = deduction.status === "SKIPPED" && deduction.failure;
  return (
    <li data-status={deduction.status} data-sequence={deduction.sequence}>
      <span>
        {day(deduction.dueOn)}
        <small>
          第 {deduction.sequence} 次 · {deduction.orderId ? `订单 ${deduction.orderId}` : "还没有订单"}
          {attempts.length > 1 && ` · 试了 ${attempts.length} 次`}
        </small>
      </span>
      <Amount value={deduction.price} />
      <span class={`chip ${CHIPS[deduction.status] ?? ""}`}>{DEDUCTION_STATUS[deduction.status]}</span>
      {reasons.map((reason) => (
        <small key={reason} class="reason">
          {refused.filter((each) => each.failure?.explanationZh === reason).map((each) => (
            <time key={each.id} dateTime={each.createdAt}>
              {moment(each.createdAt)}
            </time>
          ))}
          <span>{reason}</span>
        </small>
      ))}
      {skipped && !refused.length && <small class="reason">{skipped.explanationZh}</small>}
      {deduction.nextAttemptAt && <small>{moment(deduction.nextAttemptAt)} 再试</small>}
    </li>
  );
}
