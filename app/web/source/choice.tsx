/** @jsxImportSource preact */
/** The shelf and the ways to pay: everything before a payment exists. */
import { useState } from "preact/hooks";
import { METHODS, type Order, yuan } from "./payment";
import { type Product, visitor } from "./session";
import { offered, place } from "./ways";

export function Choice(props: {
  order: Order | undefined;
  opening: boolean;
  trouble: string | undefined;
  onPay: (product: string, method: string) => void;
  onBack: () => void;
}) {
  const { products } = visitor();
  const { suitable, others } = offered();
  const [product, setProduct] = useState(products[0]?.id ?? "");
  const [method, setMethod] = useState(suitable[0] ?? others[0] ?? "");
  const amount = props.order ? yuan(props.order.data.amount) : (products.find((each) => each.id === product)?.amount ?? "0.00");
  return (
    <form
      aria-busy={props.opening}
      onSubmit={(event) => {
        event.preventDefault();
        if (!props.opening) props.onPay(product, method);
      }}
    >
      {props.order ? (
        <div class="kept">
          <h1>再付一次</h1>
          <p>
            订单 {props.order.id} · {props.order.data.title}
          </p>
        </div>
      ) : (
        <fieldset>
          <legend>
            <h1>挑一件</h1>
          </legend>
          <div class="shelf">
            {products.map((each) => (
              <label key={each.id} class="product">
                <input type="radio" name="product" value={each.id} checked={each.id === product} onChange={() => setProduct(each.id)} />
                <Picture id={each.id} />
                <span class="what">
                  <b>{each.title}</b>
                  <small>{each.note}</small>
                </span>
                <span class="price">
                  <Amount value={each.amount} />
                </span>
              </label>
            ))}
          </div>
        </fieldset>
      )}
      <fieldset>
        <legend>
          <h2>怎么付</h2>
        </legend>
        {!method && <p class="note">{visitor().ways.length ? NOT_HERE : "还没有可用的商户账号：请先用 shouyin 命令或管理接口添加一个。"}</p>}
        <Ways methods={suitable} chosen={method} onChoose={setMethod} />
        {others.length > 0 && (
          <details open={!suitable.length}>
            <summary>其他环境的方式，沙箱里也能试</summary>
            <Ways methods={others} chosen={method} onChoose={setMethod} more />
          </details>
        )}
      </fieldset>
      <p class="trouble" role="alert">
        {props.trouble}
      </p>
      <button class="main" type="submit" id="pay" disabled={props.opening || !method}>
        {props.opening ? (
          "正在下单…"
        ) : (
          <>
            支付 <Amount value={amount} />
          </>
        )}
      </button>
      {props.order && (
        <button class="plain" type="button" onClick={props.onBack}>
          换一件商品
        </button>
      )}
      {!props.order && <p class="note">沙箱环境，不会扣真钱。订单写入演示表 orders，支付走完整的签名、通知与对账流程。</p>}
    </form>
  );
}

const NOT_HERE = place === "wechat" ? "请点右上角「···」，在浏览器中打开本页付款。" : "请在微信中打开本页付款。";

function Ways(props: { methods: string[]; chosen: string; onChoose: (method: string) => void; more?: boolean }) {
  return (
    <div class={props.more ? "ways more" : "ways"}>
      {props.methods.map((each) => (
        <label key={each} class="way">
          <input type="radio" name="method" value={each} checked={each === props.chosen} onChange={() => props.onChoose(each)} />
          <span>
            <b>{METHODS[each]?.name}</b>
            <small>{METHODS[each]?.hint}</small>
          </span>
        </label>
      ))}
    </div>
  );
}

/** A yuan amount with a smaller sign and aligned digits. */
export const Amount = ({ value }: { value: string }) => (
  <span class="amount">
    <i>¥</i>
    {value}
  </span>
);

/** Drawn here, so that the page needs no pictures and no emoji font. */
function Picture({ id }: { id: Product["id"] }) {
  return (
    <svg class={`picture ${id}`} viewBox="0 0 48 48" width="48" height="48" aria-hidden="true">
      {id === "coffee" && (
        <>
          <path class="a" d="M15 12h18l2.5 6v20a3 3 0 0 1-3 3h-17a3 3 0 0 1-3-3V18z" />
          <path class="b" d="M15 7h18v5H15z" />
          <path class="c" d="M24 23c4.5 0 6.5 2.6 6.5 5.5S28.5 34 24 34s-6.5-2.6-6.5-5.5S19.5 23 24 23zm3.5 1.5c-4 1-2 5.5-7 7.5" />
        </>
      )}
      {id === "cup" && (
        <>
          <path class="a" d="M11 17h24v11a10 10 0 0 1-10 10h-4a10 10 0 0 1-10-10z" />
          <path class="c" d="M35 20h2.5a4.5 4.5 0 0 1 0 9H35" />
          <path class="c" d="M18 13c-2-2 1.5-3 0-5.5M24 13c-2-2 1.5-3 0-5.5M30 13c-2-2 1.5-3 0-5.5" />
          <path class="b" d="M9 40h28v2H9z" />
        </>
      )}
      {id === "card" && (
        <>
          <path class="a" d="M7 13h34v23H7z" />
          <path class="b" d="M7 36l11-12 8 8 5-5 10 9z" />
          <circle class="b" cx="33" cy="19.5" r="2.8" />
        </>
      )}
    </svg>
  );
}
