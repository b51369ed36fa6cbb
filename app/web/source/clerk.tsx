/** @jsxImportSource preact */
/**
 * The clerk's page of the demo shop: what was paid, and giving it back.
 *
 * The clerk's token sees every payment, and refunds once its role is granted that. The administrator's grants, when a
 * person presses the button: nothing is granted by opening this page.
 */
import type { Client } from "graphql-ws";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Connection, connect, send, watch } from "./api";
import { Amount } from "./choice";
import { Header } from "./header";
import { givenBack, METHODS, newer, PAID, type Payment, PAYMENT_FIELDS, type Refund, WATCH_REFUNDS } from "./payment";
import { Refunding } from "./refunding";
import "./shop.css";
import "./clerk.css";

const ROLE = "clerk";
const LOOK_MS = 3000;

const WATCH_PAYMENTS = `subscription Payments($id: ID!) { payments(orderId: $id) {${PAYMENT_FIELDS} } }`;
const PERMISSIONS = "query Permissions { permissions { role action grantedBy } }";
const GRANT = `mutation Grant($role: String!) { grantPermission(role: $role, action: "payment.refund") }`;
const REVOKE = `mutation Revoke($role: String!) { revokePermission(role: $role, action: "payment.refund") }`;

interface Sold {
  orderId: string;
  title: string;
}

interface Grant {
  role: string;
  action: string;
  grantedBy: string;
}

/** The orders that may be refunded; what happens to their payments is pushed, that there is a new one is looked for. */
async function readSold(): Promise<Sold[]> {
  const response = await fetch("/demo/clerk/orders");
  if (!response.ok) throw new Error(`读取订单失败（HTTP ${response.status}）`);
  return (await response.json()).orders;
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

function Clerk() {
  const [sold, setSold] = useState<Sold[]>();
  const [grants, setGrants] = useState<Grant[]>();
  const [payments, setPayments] = useState<Record<string, Payment>>({});
  const [refunds, setRefunds] = useState<Record<string, Refund>>({});
  const [chosen, setChosen] = useState<string>();
  const [trouble, setTrouble] = useState<string>();
  const [connection, setConnection] = useState<Connection>("connecting");
  const client = useRef<Client | undefined>(undefined);
  const watches = useRef(new Map<string, () => void>());
  client.current ??= connect(setConnection, "clerk");

  async function look() {
    try {
      setSold(await readSold());
      setGrants((await send<{ permissions: Grant[] }>(PERMISSIONS, {}, "clerk")).permissions);
      setTrouble(undefined);
    } catch (error) {
      setTrouble(messageOf(error));
    }
  }

  useEffect(() => {
    void look();
    const timer = setInterval(() => document.hidden || void look(), LOOK_MS);
    return () => clearInterval(timer);
  }, []);

  const ids = sold?.map((each) => each.orderId) ?? [];
  useEffect(() => {
    for (const [id, stop] of watches.current) {
      if (ids.includes(id)) continue;
      stop();
      watches.current.delete(id);
    }
    for (const id of ids) {
      if (watches.current.has(id)) continue;
      const stop = watch<{ payments: Payment }>(client.current!, { query: WATCH_PAYMENTS, variables: { id } }, {
        value: (data) => setPayments((known) => newer(known, data.payments)),
        refused: (error) => setTrouble(error.message),
        done: () => false,
      });
      watches.current.set(id, stop);
    }
  }, [ids.join()]);

  const paidFor = (order: Sold) => Object.values(payments).filter((each) => each.orderId === order.orderId && PAID.has(each.status));
  const rows = sold?.flatMap(paidFor) ?? [];
  const payment = rows.find((each) => each.id === chosen) ?? rows[0];
  const receive = (next: Refund) => setRefunds((known) => newer(known, next));
  // What is looked at stays chosen when a newer one comes in.
  useEffect(() => setChosen(payment?.id), [payment?.id]);
  useEffect(() => {
    if (!payment) return;
    return watch<{ refunds: Refund }>(client.current!, { query: WATCH_REFUNDS, variables: { id: payment.id } }, {
      value: (data) => receive(data.refunds),
      refused: (error) => setTrouble(error.message),
      done: () => false,
    });
  }, [payment?.id]);

  const titleOf = (row: Payment) => sold?.find((each) => each.orderId === row.orderId)?.title ?? "";
  return (
    <>
      <Header connection={connection} watching name="店员" />
      <main>
        <div class="column">
          <Rights grant={grants && (grants.find((each) => each.role === ROLE && each.action === "payment.refund") ?? null)} onChange={look} />
          <section class="panel" aria-labelledby="sold-title">
            <h1 id="sold-title">已付订单</h1>
            <div class="shelf sold" role="radiogroup" aria-labelledby="sold-title">
              {sold?.flatMap((order) => {
                const found = paidFor(order);
                // Each order has its place before its payments arrive.
                if (!found.length) return <Row key={order.orderId} order={order} chosen={false} />;
                return found.map((row) => (
                  <Row key={row.id} order={order} row={row} chosen={row.id === payment?.id} onChoose={() => setChosen(row.id)} />
                ));
              })}
              {sold && !sold.length && (
                <p class="note">
                  还没有。到<a href="/">小店</a>买一件，付完它自己会出现在这里。
                </p>
              )}
            </div>
            <p class="trouble" role="alert">
              {trouble}
            </p>
          </section>
        </div>
        <section class="counter" aria-labelledby="refund-title">
          {payment ? (
            <Refunding
              key={payment.id}
              payment={payment}
              title={titleOf(payment)}
              refunds={Object.values(refunds).filter((each) => each.paymentId === payment.id)}
              onRefund={receive}
            />
          ) : (
            <h1 id="refund-title">退款</h1>
          )}
        </section>
      </main>
    </>
  );
}

/** Whether the clerk's role may refund, and the administrator's button that changes it. */
function Rights({ grant, onChange }: { grant: Grant | null | undefined; onChange: () => Promise<void> }) {
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState<string>();
  async function change() {
    if (busy || grant === undefined) return;
    setBusy(true);
    setTrouble(undefined);
    await send(grant ? REVOKE : GRANT, { role: ROLE }, "admin").then(onChange, (error: unknown) => setTrouble(messageOf(error)));
    setBusy(false);
  }
  return (
    <section class="panel rights" aria-labelledby="rights-title">
      <h2 id="rights-title">权限</h2>
      <p aria-live="polite" id="rights">
        {grant && `角色 ${ROLE} 可以退款，由 ${grant.grantedBy} 授权。`}
        {grant === null && `角色 ${ROLE} 不能退款：没有人授权以前，谁都不能退，管理员也一样。`}
      </p>
      <button class="second" type="button" id="grant" aria-busy={busy} onClick={change}>
        {grant ? "以管理员身份收回" : "以管理员身份授权退款"}
      </button>
      <p class="trouble" role="alert">
        {trouble}
      </p>
    </section>
  );
}

function Row({ order, row, chosen, onChoose }: { order: Sold; row?: Payment; chosen: boolean; onChoose?: () => void }) {
  const { done, underway } = row ? givenBack(row) : {};
  return (
    <label class="product">
      <input type="radio" name="payment" value={row?.id} checked={chosen} disabled={!row} onChange={onChoose} />
      <span class="what">
        <b>{order.title}</b>
        <small>
          订单 {order.orderId} · {row ? (METHODS[row.method]?.name ?? row.method) : "…"}
        </small>
      </span>
      <span class="what sums">
        <Amount value={row?.paidAmount ?? "…"} />
        <small>{underway ? `退款中 ${underway}` : done ? `已退 ${done}` : "未退款"}</small>
      </span>
    </label>
  );
}

render(<Clerk />, document.getElementById("clerk")!);
