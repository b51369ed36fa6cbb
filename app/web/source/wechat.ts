/**
 * WeChat's side of the page: who the payer is, and the cashier that WeChat opens over it.
 *
 *     login    /wechat/oauth/{app} ──▶ WeChat ──▶ /?order=…&method=…#openid=…
 *     cashier  WeixinJSBridge, or its stand-in at the sandbox, which comes back with &err_msg=…
 *
 * What comes back either way is a hint: the payment's state is what the server says.
 */
import type { WechatPayParams } from "./payment";
import { visitor, type Way } from "./session";
import { place } from "./ways";

const BRIDGE_MS = 2000;
const LEFT = "left for the login of";
const WORD = /^get_brand_wcpay_request:(ok|cancel|fail)$/;

interface Bridge {
  invoke(name: string, params: WechatPayParams, done: (result: { err_msg?: string; err_desc?: string }) => void): void;
}

declare global {
  interface Window {
    WeixinJSBridge?: Bridge;
  }
}

/** The payer's openid as far as it is known, for the payment's input; null where one has to log in first. */
export function payerFor(way: Way | undefined): { appId?: string; openid?: string } | null {
  if (!way?.appId) return {};
  const openid = way.openid ?? sessionStorage.getItem(`openid ${way.appId}`);
  return openid ? { appId: way.appId, openid } : null;
}

/** After a refusal the next try logs in anew: the openid may have been the reason. */
export const forgetPayer = (): void => sessionStorage.clear();

/** Leaves for WeChat's login, which comes back to the order; see `takeArrival`. */
export function logIn(way: Way, orderId: string): void {
  const back = `/?order=${orderId}&method=${way.method}`;
  sessionStorage.setItem(LEFT, way.method);
  location.assign(`${way.login}?scope=snsapi_base&return=${encodeURIComponent(back)}`);
}

/** What a way back brought: a login's outcome for the way to pay that asked for it, or the cashier's word. */
export interface Arrival {
  login?: { method: string; refusal: string | null };
  word?: string;
}

/**
 * Reads the arrival out of the address and takes it away there, so that a reload does not arrive again. An address that
 * somebody else made up brings nothing: neither a login nobody left for, nor a text of theirs.
 */
export function takeArrival(find: (method: string) => Way | undefined): Arrival {
  const query = new URLSearchParams(location.search);
  const fragment = new URLSearchParams(location.hash.slice(1));
  const [method, word] = [query.get("method"), query.get("err_msg")];
  const [openid, error] = [fragment.get("openid"), fragment.get("message") ?? fragment.get("error")];
  query.delete("method");
  query.delete("err_msg");
  history.replaceState(null, "", String(query) ? `/?${query}` : "/");
  if (word) return WORD.test(word) ? { word } : {};
  const way = method && (openid || error) && method === sessionStorage.getItem(LEFT) ? find(method) : undefined;
  if (!way) return {};
  sessionStorage.removeItem(LEFT);
  if (openid) sessionStorage.setItem(`openid ${way.appId}`, openid);
  return { login: { method: way.method, refusal: openid ? null : error } };
}

/** WeChat's bridge, which comes a moment after the page; null where there is none. */
function bridge(): Promise<Bridge | null> {
  const found = window.WeixinJSBridge;
  if (found || place !== "wechat") return Promise.resolve(found ?? null);
  return new Promise((resolve) => {
    const look = () => resolve(window.WeixinJSBridge ?? null);
    document.addEventListener("WeixinJSBridgeReady", look, { once: true });
    setTimeout(look, visitor().sandboxUrl ? 300 : BRIDGE_MS);
  });
}

/**
 * Opens WeChat's cashier over the page and resolves with its word, such as get_brand_wcpay_request:cancel. It may never
 * resolve: on an iPhone the word can get lost. At a sandbox the page leaves for the stand-in and comes back to `back`.
 */
export async function openCashier(params: WechatPayParams, back: string): Promise<string> {
  const { appId, timeStamp, nonceStr, package: prepay, signType, paySign } = params;
  const asked = { appId, timeStamp, nonceStr, package: prepay, signType, paySign };
  const found = await bridge();
  if (found) {
    return new Promise((resolve) =>
      found.invoke("getBrandWCPayRequest", asked, ({ err_msg = "", err_desc = "" }) =>
        resolve(err_desc && !err_msg.endsWith(":ok") ? `${err_msg} ${err_desc}` : err_msg),
      ),
    );
  }
  const { sandboxUrl } = visitor();
  if (!sandboxUrl) return "请在微信中打开";
  location.assign(`${sandboxUrl}/wechat/bridge?${new URLSearchParams({ ...asked, return_url: back })}`);
  return new Promise(() => {});
}
