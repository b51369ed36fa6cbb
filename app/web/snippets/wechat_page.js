import { pay, send, watch } from "./page.js";

/** Who pays, from WeChat's login; null while the page leaves for it. Make it known once: it comes back to this address. */
function payer(api, appId) {
  const back = location.href.split("#")[0];
  const login = new URLSearchParams(location.hash.slice(1)); // token, openid, expiresAt; or error, message
  history.replaceState(null, "", back); // neither to be shared nor to arrive twice
  if (login.has("error")) throw new Error(login.get("message"));
  if (login.has("openid")) return { appId, openid: login.get("openid") };
  location.replace(`${api}/wechat/oauth/${appId}?scope=snsapi_base&return=${encodeURIComponent(back)}`);
  return null;
}

/** WeChat's bridge; it may come after the page. */
const bridge = () =>
  new Promise((ready) => {
    const look = () => window.WeixinJSBridge && ready(window.WeixinJSBridge);
    document.addEventListener("WeixinJSBridgeReady", look, { once: true });
    look();
  });

/** Opens WeChat's cashier over the page. Resolves with what to tell the payer, which is no result; may never resolve. */
export async function openCashier(api, token, { __typename, ...params }) {
  const wechat = await bridge();
  const { err_msg, err_desc = "" } = await new Promise((done) => wechat.invoke("getBrandWCPayRequest", params, done));
  if (err_msg.endsWith(":ok")) return "";
  const query = "query ($message: String!) { explainWechatError(message: $message) { explanationZh } }";
  const { explainWechatError } = await send(api, token, query, { message: `${err_msg} ${err_desc}`.trim() });
  return explainWechatError?.explanationZh ?? err_msg;
}

/** token: your own user's, to whom the order belongs. onState gets the server's record, onNote what the cashier said.
    The same attempt gives the same payment; one that failed or was closed needs the next. */
export async function payInWechat(api, token, appId, orderId, onState, onNote, attempt = 1) {
  const who = payer(api, appId);
  if (!who) return;
  const idempotencyKey = `order-${orderId}-${attempt}`;
  const input = { orderId, method: "WECHAT_JSAPI", subject: "Oolong", idempotencyKey, ...who };
  const payment = await pay(api, token, input);
  let opened = false;
  watch(api, token, payment.id, (state) => {
    onState(state);
    if (opened || !state.action) return;
    opened = true;
    openCashier(api, token, state.action).then(onNote, console.error);
  });
}
