/** @jsxImportSource preact */
/**
 * The club's page of the demo shop: choose a membership, sign once, and watch what is deducted from then on.
 *
 *     joining ──start──▶ PENDING ──signed in Alipay──▶ ACTIVE ⇄ SUSPENDED ──▶ CANCELLED
 *
 * Which membership is looked at stands in the address; coming back from signing it names the order only.
 */
import type { Client } from "graphql-ws";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Connection, connect, newKey, Refused, send, sendOnce, watch } from "./api";
import { Amount } from "./choice";
import { type Attempt, type Cycle, CYCLE_STATUS, type CycleSummary, day, MINE, SCENE, START, WATCH_ATTEMPT, WATCH_CYCLE } from "./cycle";
import { Integration } from "./developers";
import { Header } from "./header";
import { Joining } from "./joining";
import { Membership } from "./membership";
import { createOrder, type Product, visitor } from "./session";
import { TestClock } from "./testclock";
import "./shop.css";
import "./club.css";

const PATH = "/demo/club";
const RETRY_MS = 2000;

const inAddress = (name: string) => {
  const id = new URLSearchParams(location.search).get(name) ?? "";
  return /^\d{1,19}$/.test(id) ? id : null;
};

const asError = (error: unknown) => (error instanceof Error ? error : new Error(String(error)));

function Club() {
  const [cycleId, setCycleId] = useState(() => inAddress("cycle"));
  const [cycle, setCycle] = useState<Cycle>();
  const [mine, setMine] = useState<CycleSummary[]>();
  const [opening, setOpening] = useState(false);
  const [trouble, setTrouble] = useState<Error>();
  const [connection, setConnection] = useState<Connection>("connecting");
  const client = useRef<Client | undefined>(undefined);
  client.current ??= connect(setConnection);

  /** Takes in what the server says; a state older than the one shown changes nothing. */
  const receive = (next: Cycle) => setCycle((shown) => (shown?.id === next.id && shown.version > next.version ? shown : next));

  // What is watched changes by itself; the list is read again when that changed something in it.
  const shown = cycle?.id === cycleId ? cycle : undefined;
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let left = false;
    const read = (): void => {
      send<{ myCyclePayments: CycleSummary[] }>(MINE, {}).then(
        ({ myCyclePayments }) => {
          if (left) return;
          setMine(myCyclePayments);
          const orderId = inAddress("order");
          const signed = orderId && myCyclePayments.find((each) => each.orderId === orderId);
          if (signed) go(signed.id);
        },
        (error: unknown) => {
          if (left) return;
          if (error instanceof Refused) setTrouble(error);
          else timer = setTimeout(read, RETRY_MS);
        },
      );
    };
    read();
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [cycleId, shown?.status, shown?.nextDeductionOn, shown?.cancelling]);

  useEffect(() => {
    if (!cycleId) return;
    return watch<{ cyclePayment: Cycle }>(client.current!, { query: WATCH_CYCLE, variables: { id: cycleId } }, {
      value: (data) => receive(data.cyclePayment),
      refused: setTrouble,
      done: () => false,
    });
  }, [cycleId]);

  // What is paid while signing is no deduction: it is done after the agreement is, and changes no column of the cycle.
  const paying = shown?.payments.find((each) => each.orderId === shown.orderId && !each.final)?.id;
  useEffect(() => {
    if (!paying) return;
    return watch<{ payment: Attempt }>(client.current!, { query: WATCH_ATTEMPT, variables: { id: paying } }, {
      value: ({ payment }) => setCycle((known) => known && { ...known, payments: known.payments.map((each) => (each.id === payment.id ? payment : each)) }),
      refused: setTrouble,
      done: () => false,
    });
  }, [paying]);

  useEffect(() => {
    document.title = shown ? `${CYCLE_STATUS[shown.status]} · 会员 · 收银` : "会员 · 收银";
  }, [shown?.status]);

  // Another membership, or the choice, is another screen: on a phone the press was far down the last one.
  useEffect(() => scrollTo({ top: 0, behavior: "instant" }), [cycleId]);

  useEffect(() => {
    const back = () => setCycleId(inAddress("cycle"));
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);

  function go(id: string | null) {
    const place = id ? `${PATH}?cycle=${id}` : PATH;
    if (inAddress("order")) history.replaceState(null, "", place);
    else if (id !== inAddress("cycle")) history.pushState(null, "", place);
    setTrouble(undefined);
    setCycleId(id);
  }

  async function start(product: Product, payNow: boolean) {
    setTrouble(undefined);
    setOpening(true);
    try {
      const order = await createOrder(product.id);
      const input = {
        orderId: order.orderId,
        price: order.amount,
        subject: order.title,
        intervalDays: product.intervalDays,
        scene: SCENE,
        payNow,
        returnUrl: `${location.origin}${PATH}?order=${order.orderId}`,
        idempotencyKey: newKey(),
      };
      const answer = await sendOnce<{ startCyclePayment: Cycle }>(START, input, (text) => setTrouble(new Error(text)));
      receive(answer.startCyclePayment);
      go(answer.startCyclePayment.id);
    } catch (error) {
      setTrouble(asError(error));
    }
    setOpening(false);
  }

  async function act(operation: string) {
    setTrouble(undefined);
    try {
      const [answer] = Object.values(await send<Record<string, Cycle>>(operation, { id: cycleId }));
      if (answer) receive(answer);
    } catch (error) {
      setTrouble(asError(error));
    }
  }

  return (
    <>
      <Header connection={connection} watching={cycleId !== null} name="会员" />
      <main>
        <section class="counter" aria-label="会员">
          {cycleId ? (
            <Membership key={cycleId} cycle={shown} trouble={trouble?.message} onAct={act} onLeave={() => go(null)} />
          ) : (
            <Joining opening={opening} trouble={trouble} onStart={start} onOpen={go} />
          )}
        </section>
        <aside aria-label="我的会员与测试时钟">
          <TestClock />
          <Mine mine={mine} chosen={cycleId} onOpen={go} />
          <Integration {...visitor()} steps={STEPS} />
        </aside>
      </main>
    </>
  );
}

function Mine({ mine, chosen, onOpen }: { mine: CycleSummary[] | undefined; chosen: string | null; onOpen: (id: string | null) => void }) {
  const open = (id: string | null) => (event: Event) => {
    event.preventDefault();
    onOpen(id);
  };
  return (
    <section class="panel" aria-labelledby="mine-title">
      <h2 id="mine-title">我的会员</h2>
      <ul class="links mine">
        {mine?.map((each) => (
          <li key={each.id}>
            <a href={`${PATH}?cycle=${each.id}`} aria-current={each.id === chosen ? "true" : undefined} onClick={open(each.id)}>
              <b>{each.subject}</b>
              <small>
                <Amount value={each.price} /> / {each.intervalDays} 天 · {each.cancelling ? "正在取消" : CYCLE_STATUS[each.status]}
                {each.status === "ACTIVE" && each.nextDeductionOn && ` · 下次 ${day(each.nextDeductionOn)}`}
              </small>
            </a>
          </li>
        ))}
      </ul>
      {mine && !mine.length && <p class="note">还没有开通过。</p>}
      {chosen && (
        <a href={PATH} class="another" onClick={open(null)}>
          再开通一个
        </a>
      )}
    </section>
  );
}

const STEPS: [string, string][] = [
  [
    "签一次",
    'mutation {\n  startCyclePayment(input: {\n    orderId: "10", price: "9.90", intervalDays: 7,\n    subject: "周会员", scene: "INDUSTRY|DIGITAL_MEDIA"\n  }) { id action { … on Redirect { url } } }\n}',
  ],
  ["看着每次扣款", 'subscription {\n  cyclePayment(id: "3") {\n    status nextDeductionOn\n    deductions { dueOn status failure { explanationZh } }\n  }\n}'],
  ["每个扣款日一张新订单", "async def on_deduction(due, connection):\n    return await connection.fetchval(…)  # 新订单的 id"],
];

render(<Club />, document.getElementById("club")!);
