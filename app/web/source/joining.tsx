/** @jsxImportSource preact */
/** The memberships on the shelf: everything before one is signed. */
import { useState } from "preact/hooks";
import { Refused } from "./api";
import { Amount } from "./choice";
import { type Product, visitor } from "./session";

export function Joining(props: {
  opening: boolean;
  trouble: Error | undefined;
  onStart: (product: Product, payNow: boolean) => void;
  onOpen: (cycleId: string) => void;
}) {
  const { memberships } = visitor();
  const [chosen, setChosen] = useState(memberships[0]);
  const [payNow, setPayNow] = useState(false);
  return (
    <form
      aria-busy={props.opening}
      onSubmit={(event) => {
        event.preventDefault();
        if (!props.opening && chosen) props.onStart(chosen, payNow);
      }}
    >
      <fieldset>
        <legend>
          <h1>开通会员</h1>
        </legend>
        <div class="shelf">
          {memberships.map((each) => (
            <label key={each.id} class="product">
              <input type="radio" name="membership" value={each.id} checked={each === chosen} onChange={() => setChosen(each)} />
              <span class="what">
                <b>{each.title}</b>
                <small>{each.note}</small>
              </span>
              <span class="what sums">
                <Amount value={each.amount} />
                <small>每 {each.intervalDays} 天</small>
              </span>
            </label>
          ))}
        </div>
      </fieldset>
      <fieldset>
        <legend>
          <h2>什么时候付第一次</h2>
        </legend>
        <div class="ways">
          <Way name="签约，今天扣第一次" hint="签好以后自动扣" chosen={!payNow} value="sign" onChoose={() => setPayNow(false)} />
          <Way
            name="支付并签约"
            hint={`现在付一次，${chosen?.intervalDays ?? ""} 天后开始自动扣`}
            chosen={payNow}
            value="pay"
            onChoose={() => setPayNow(true)}
          />
        </div>
      </fieldset>
      <Trouble trouble={props.trouble} onOpen={props.onOpen} />
      <button class="main" type="submit" id="start" disabled={props.opening || !chosen}>
        {props.opening ? "正在准备…" : "去签约"}
      </button>
      <p class="note">自动续费：每次到期生成一张新订单并从支付宝扣款，可以随时暂停或取消。沙箱环境，不会扣真钱。</p>
    </form>
  );
}

function Way(props: { name: string; hint: string; value: string; chosen: boolean; onChoose: () => void }) {
  return (
    <label class="way">
      <input type="radio" name="first" value={props.value} checked={props.chosen} onChange={props.onChoose} />
      <span>
        <b>{props.name}</b>
        <small>{props.hint}</small>
      </span>
    </label>
  );
}

/** Why it was refused. Where the user has one of this scene already, the way to that one. */
function Trouble({ trouble, onOpen }: { trouble: Error | undefined; onOpen: (cycleId: string) => void }) {
  const signed = trouble instanceof Refused && trouble.code === "SCENE_ALREADY_SIGNED";
  const id = signed ? trouble.more.cyclePaymentId : undefined;
  return (
    <div class="trouble" role="alert" id="refusal">
      {trouble && <p>{trouble.message}</p>}
      {typeof id === "string" && (
        <p>
          <a
            href={`?cycle=${id}`}
            onClick={(event) => {
              event.preventDefault();
              onOpen(id);
            }}
          >
            查看已有的会员
          </a>
          ，在那里继续签约，或者先取消它。
        </p>
      )}
    </div>
  );
}
