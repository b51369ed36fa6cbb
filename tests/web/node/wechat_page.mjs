// A browser inside WeChat around snippets/wechat_page.js: node wechat_page.mjs '{"api": …, "token": …, …}'
//
// Follows the login over HTTP, cookies included, then prints {"asked": …} when the bridge is called, {"state": …} and
// {"note": …}. Reads {"answer": {"err_msg": …}} and {"cut": true}. It ends by itself when the payment is final.
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { payInWechat } from "./wechat_page.js";

const { api, token, appId, orderId } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
let live;
let answer;
let left;

globalThis.WebSocket = class extends WebSocket {
  constructor(...all) {
    super(...all);
    live = this;
  }
};
globalThis.window = globalThis;
globalThis.document = new EventTarget();
globalThis.history = { replaceState: (_state, _title, url) => arrive(new URL(url, location.href).href) };

function arrive(href) {
  const { hash, pathname, search } = new URL(href);
  globalThis.location = { href, hash, pathname, search, replace: (url) => (left = url) };
}

/** Where a browser ends that is sent to an address. */
async function follow(url) {
  const jar = {};
  for (let hop = 0; hop < 8; hop++) {
    if (url.includes("#token=")) return url;
    const cookie = Object.entries(jar).map((each) => each.join("=")).join("; ");
    const { status, headers } = await fetch(url, { redirect: "manual", headers: { cookie } });
    if (!headers.has("location")) throw new Error(`${status} at ${url}`);
    for (const each of headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(each);
      jar[name] = value;
    }
    url = new URL(headers.get("location"), url).href;
  }
  throw new Error("no end of redirects");
}

const start = () => payInWechat(api, token, appId, orderId, (state) => say({ state }), (note) => say({ note }));

const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const command = JSON.parse(line);
  if (command.answer) answer(command.answer);
  if (command.cut) live.terminate();
});
process.stdin.unref();

arrive(`${api}/shop/pay?order=${orderId}`);
await start();
say({ left });
arrive(await follow(left));
// WeChat puts its bridge in place after the page.
setTimeout(() => {
  globalThis.WeixinJSBridge = {
    invoke: (name, params, done) => {
      answer = done;
      say({ asked: { name, params } });
    },
  };
  document.dispatchEvent(new Event("WeixinJSBridgeReady"));
}, 30);
await start();
say({ address: location.href });
