/** @jsxImportSource preact */
/**
 * The demo shop: choose, order, pay, and watch the server's record of the payment, what is given back later included.
 *
 *     choose ──pay──▶ opening ──createPayment──▶ watching ──final──▶ done
 *        ▲               │ refused                  │ failed, closed
 *        └───────────────┴──────────────────────────┘
 *
 * WeChat's login comes between the order and the payment, on another page.
 */
import type { Client } from "graphql-ws";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Connection, connect, newKey, Refused, send, sendOnce, watch } from "./api";
import { type Entry, EventLog, Integration } from "./developers";
import { Checkout, type Stage } from "./checkout";
import { Choice } from "./choice";
import { Header } from "./header";
import { CREATE, EXPLAIN, NEW_TAB, newer, type Order, PAID, type Payment, PAYMENTS_OF_ORDER, READ_ORDER, type Refund, REFUND_STATUS, SAME_TAB, SYNC, WATCH_ORDER, WATCH_PAYMENT, WATCH_REFUNDS, yuan } from "./payment";
import { createOrder, type DemoOrder, visitor } from "./session";
import { wayOf } from "./ways";
import { forgetPayer, logIn, openCashier, payerFor, takeArrival } from "./wechat";
import "./shop.css";

const asDemoOrder = ({ id, data }: Order): DemoOrder => ({ orderId: id, title: data.title ?? "", amount: yuan(data.amount) });

interface Explained {
  explainWechatError: { explanationZh: string } | null;
}

/** What is being watched. `returned`: taken from the address, so that a missing payment has to be looked up. */
interface Place {
  orderId: string | null;
  paymentId: string | null;
  returned: boolean;
}

/** Where the address bar says we are: back from a cashier, reloaded, or new. */
function placeInAddress(): Place {
  const query = new URLSearchParams(location.search);
  const id = (name: string) => (/^\d{1,19}$/.test(query.get(name) ?? "") ? query.get(name) : null);
  return { orderId: id("order"), paymentId: id("payment"), returned: true };
}

const arrival = takeArrival(wayOf);

function Shop() {
  const [place, setPlace] = useState(placeInAddress);
  const [stage, setStage] = useState<Stage>(place.orderId ? (arrival.login ? "opening" : "watching") : "choosing");
  const [order, setOrder] = useState<Order>();
  const [payment, setPayment] = useState<Payment>();
  const [trouble, setTrouble] = useState<string>();
  const [connection, setConnection] = useState<Connection>("connecting");
  const [entries, setEntries] = useState<Entry[]>([]);
  const client = useRef<Client | undefined>(undefined);
  const latest = useRef<Payment | undefined>(undefined);

  const log = (kind: Entry["kind"], text: string, tone?: Entry["tone"]) =>
    setEntries((before) => [{ at: new Date(), kind, text, tone }, ...before].slice(0, 60));

  client.current ??= connect((state, detail) => {
    setConnection(state);
    if (state === "open") log("连接", "已连上 /graphql（graphql-transport-ws）");
    if (state === "lost" && detail !== "1000") log("连接", `断开（${detail}），自动重连`, "bad");
  });

  /** Takes in what the server says; a state older than the one shown is a repeat and changes nothing. */
  const receive = (next: Payment, from: string) => {
    const shown = latest.current;
    if (shown?.id === next.id && shown.version >= next.version) {
      if (from === "推送") log("支付", `#${next.id} v${next.version} 重复，忽略`, "quiet");
      return;
    }
    latest.current = next;
    setPayment(next);
    if (next.status === "SUCCESSFUL") setTrouble(undefined);
    const tone = next.status === "SUCCESSFUL" ? "good" : next.final && !PAID.has(next.status) ? "bad" : undefined;
    log("支付", `${from} #${next.id} v${next.version} ${next.status}${next.checking ? "（确认中）" : ""}`, tone);
  };

  // Coming back from a cashier the address names the order only: its newest payment is the one meant.
  useEffect(() => {
    if (!place.returned || !place.orderId || place.paymentId || arrival.login) return;
    const orderId = place.orderId;
    let left = false;
    const look = (attempt: number): void => {
      send<{ payments: Payment[] }>(PAYMENTS_OF_ORDER, { orderId }).then(
        ({ payments }) => {
          const newest = payments.reduce<Payment | undefined>((a, b) => (!a || BigInt(b.id) > BigInt(a.id) ? b : a), undefined);
          if (left) return;
          if (newest) go(orderId, newest.id);
          else setStage("choosing");
        },
        (error: Error) => {
          if (left) return;
          if (error instanceof Refused) setTrouble(error.message);
          else setTimeout(() => left || look(attempt + 1), Math.min(500 * 2 ** attempt, 8000));
        },
      );
    };
    look(0);
    return () => {
      left = true;
    };
  }, [place]);

  useEffect(() => {
    if (!place.paymentId) return;
    const id = place.paymentId;
    return watch<{ payment: Payment }>(client.current!, { query: WATCH_PAYMENT, variables: { id } }, {
      value: (data) => receive(data.payment, "推送"),
      refused: (error) => setTrouble(error.message),
      // Final is not the end: money may arrive for a closed payment, and go back from a paid one.
      done: () => false,
    });
  }, [place.paymentId]);

  const paid = payment && PAID.has(payment.status) ? payment.id : null;
  useEffect(() => {
    if (!paid) return;
    let known: Record<string, Refund> = {};
    return watch<{ refunds: Refund }>(client.current!, { query: WATCH_REFUNDS, variables: { id: paid } }, {
      value: ({ refunds: next }) => {
        const before = known;
        known = newer(known, next);
        if (known === before) return;
        const why = next.failure?.explanationZh ?? next.reason;
        const tone = next.status === "REFUNDED" ? "good" : next.status === "FAILED" ? "bad" : undefined;
        log("退款", `推送 #${next.id} v${next.version} ${REFUND_STATUS[next.status]} ¥${next.amount}${why ? `（${why}）` : ""}`, tone);
      },
      refused: (error) => setTrouble(error.message),
      done: () => false,
    });
  }, [paid]);

  useEffect(() => {
    if (!place.orderId) return;
    const id = place.orderId;
    return watch<{ order: Order }>(client.current!, { query: WATCH_ORDER, variables: { id } }, {
      value: (data) => {
        setOrder(data.order);
        log("订单", `推送 #${id} status=${data.order.data.status}`, data.order.data.status === "paid" ? "good" : undefined);
      },
      refused: (error) => setTrouble(error.message),
      done: () => false,
    });
  }, [place.orderId]);

  useEffect(() => {
    if (arrival.login && place.orderId) void resume(place.orderId, arrival.login);
    if (arrival.word && place.paymentId) void hear(arrival.word, place.paymentId);
  }, []);

  useEffect(() => {
    document.title = payment?.status === "SUCCESSFUL" ? "支付成功 · 收银" : "收银 · 演示小店";
  }, [payment?.status]);

  // Another stage is another screen: on a phone the press was far down the last one.
  const screen = stage === "watching";
  useEffect(() => scrollTo({ top: 0, behavior: "instant" }), [screen]);

  function go(orderId: string | null, paymentId: string | null) {
    const query = orderId ? `?order=${orderId}${paymentId ? `&payment=${paymentId}` : ""}` : "";
    history.replaceState(null, "", `/${query}`);
    setPlace({ orderId, paymentId, returned: false });
    setStage(orderId ? "watching" : "choosing");
  }

  async function pay(product: string, method: string) {
    setTrouble(undefined);
    setStage("opening");
    // A browser opens a new tab only during the press itself; where it goes is known a moment later.
    const cashier = NEW_TAB.has(method) ? window.open("about:blank", "_blank") : null;
    let made = order && asDemoOrder(order);
    try {
      made ??= await createOrder(product);
      if (!order) log("订单", `下单 #${made.orderId} ${made.title} ¥${made.amount}`);
      const way = wayOf(method);
      if (way?.login && !payerFor(way)) logIn(way, made.orderId);
      else await open(made, method, cashier);
    } catch (error) {
      cashier?.close();
      giveUp(error, made);
    }
  }

  /** Goes on where the login interrupted. */
  async function resume(orderId: string, login: { method: string; refusal: string | null }) {
    let made: DemoOrder | undefined;
    try {
      const found = (await send<{ order: Order | null }>(READ_ORDER, { id: orderId })).order;
      if (!found) throw new Refused("ORDER_NOT_FOUND", "没有这张订单");
      made = asDemoOrder(found);
      if (login.refusal) throw new Refused("LOGIN", login.refusal);
      await open(made, login.method, null);
    } catch (error) {
      giveUp(error, made);
    }
  }

  /** Opens the payment and goes to its cashier; `tab` waits for one that opens in a tab of its own. */
  async function open(made: DemoOrder, method: string, tab: Window | null) {
    const input = {
      orderId: made.orderId,
      method,
      amount: made.amount,
      subject: made.title,
      returnUrl: `${location.origin}/?order=${made.orderId}`,
      idempotencyKey: newKey(),
      ...payerFor(wayOf(method)),
    };
    const { createPayment: opened } = await sendOnce<{ createPayment: Payment }>(CREATE, input, (text) => log("支付", text, "bad"));
    receive(opened, "回答");
    go(opened.orderId, opened.id);
    const next = opened.action;
    if (next?.__typename !== "Redirect") tab?.close();
    else if (tab) {
      tab.opener = null;
      tab.location.replace(next.url);
    } else if (SAME_TAB.has(method)) location.assign(next.url);
    if (next?.__typename === "WechatPayParams") void callWechat(opened);
  }

  async function callWechat({ id, orderId, action }: Payment) {
    if (action?.__typename !== "WechatPayParams") return;
    setTrouble(undefined);
    await hear(await openCashier(action, `${location.origin}/?order=${orderId}&payment=${id}`), id);
  }

  /** The cashier's word is no result; it says whether to ask now, or what the payer should know. */
  async function hear(word: string, paymentId: string) {
    log("支付", `收银台说 ${word}`, "quiet");
    if (/:cancel$/.test(word)) return setTrouble("付款窗口已关闭，可以接着付。");
    if (!/:ok$/.test(word)) {
      const answer = await send<Explained>(EXPLAIN, { message: word.slice(0, 500) }).catch(() => undefined);
      setTrouble(answer?.explainWechatError?.explanationZh ?? word);
    }
    const asked = await send<{ syncPayment: Payment }>(SYNC, { id: paymentId }).catch(() => undefined);
    if (asked) receive(asked.syncPayment, "查询");
  }

  /** Back to the choice; the next try is about the same order. */
  function giveUp(error: unknown, made: DemoOrder | undefined) {
    if (error instanceof Refused) forgetPayer();
    if (made) setOrder({ id: made.orderId, data: { title: made.title, amount: made.amount, status: "unpaid" } });
    setTrouble(error instanceof Error ? error.message : String(error));
    setStage("choosing");
    log("支付", error instanceof Refused ? `被拒绝 ${error.code}` : "没有收到回答", "bad");
  }

  /** One more try on the same order, or a new visit to the shelf. */
  function startOver(keepOrder: boolean) {
    latest.current = undefined;
    setPayment(undefined);
    setTrouble(undefined);
    if (keepOrder && order) {
      go(order.id, null);
      setStage("choosing");
    } else {
      setOrder(undefined);
      go(null, null);
    }
  }

  async function ask(operation: string, field: "syncPayment" | "closePayment") {
    if (!payment) return;
    setTrouble(undefined);
    try {
      receive((await send<Record<typeof field, Payment>>(operation, { id: payment.id }))[field], "回答");
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
    }
  }

  return (
    <>
      <Header connection={connection} watching={place.orderId !== null} name="Shouyin" />
      <main>
        <section class="counter" aria-label="收银台">
          {stage === "choosing" || stage === "opening" ? (
            <Choice order={order} opening={stage === "opening"} trouble={trouble} onPay={pay} onBack={() => startOver(false)} />
          ) : (
            <Checkout payment={payment} order={order} trouble={trouble} onAsk={ask} onCashier={callWechat} onStartOver={startOver} />
          )}
        </section>
        <aside aria-label="给开发者">
          <EventLog entries={entries} />
          <Integration {...visitor()} />
        </aside>
      </main>
    </>
  );
}

render(<Shop />, document.getElementById("shop")!);
