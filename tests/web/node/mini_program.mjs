// A mini-program around snippets/mini_program.js, driven line by line: node mini_program.mjs '{"snippet": …, "api": …, …}'
//
// Prints {"data": …} for each setData, {"asked": …} for each requestPayment, {"socket": "open"} when one is acknowledged.
// Reads {"answer": errMsg}, {"cut": loudly?}, {"show": true}, {"press": method}, {"leave": true}. It ends by itself after
// that, unless the page left a timer or a socket behind.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";
import WebSocket from "ws";

const { snippet, api, sandbox, token, appId, orderId } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
let page;
let live;
let pending;

globalThis.getApp = () => ({ globalData: { token } });
globalThis.Page = (methods) => {
  const data = {};
  page = { ...methods, data, setData: (change) => say({ data: Object.assign(data, change) }) };
};
globalThis.wx = {
  getAccountInfoSync: () => ({ miniProgram: { appId } }),
  async login({ success }) {
    const asked = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ app_id: appId }) };
    success({ code: (await (await fetch(`${sandbox}/_control/wechat/codes`, asked)).json()).code });
  },
  request({ url, method, header, data, success, fail }) {
    fetch(url, { method, headers: { "content-type": "application/json", ...header }, body: JSON.stringify(data) })
      .then(async (answer) => success({ statusCode: answer.status, data: await answer.json() }))
      .catch((error) => fail({ errMsg: `request:fail ${error.message}` }));
  },
  requestPayment({ success, fail, ...params }) {
    pending = { success, fail };
    say({ asked: params });
  },
  connectSocket({ url, protocols }) {
    const socket = (live = new WebSocket(url, protocols));
    const on = {};
    for (const name of ["open", "close", "error"]) socket.on(name, () => on[name]?.({}));
    socket.on("message", (text) => {
      if (JSON.parse(text).type === "connection_ack") say({ socket: "open" });
      on.message?.({ data: String(text) });
    });
    return {
      send: ({ data }) => socket.send(data),
      close: ({ code }) => socket.close(code),
      onOpen: (then) => (on.open = then),
      onMessage: (then) => (on.message = then),
      onClose: (then) => (on.close = then),
      onError: (then) => (on.error = then),
    };
  },
};

const commands = {
  answer(errMsg) {
    const { success, fail } = pending;
    (errMsg.endsWith(":ok") ? success : fail)({ errMsg });
  },
  // In the background a socket is gone and nobody is told; in a tunnel its end is noticed.
  cut(loudly) {
    if (!loudly) live.removeAllListeners();
    live.on("error", () => {}).terminate();
  },
  show: () => page.onShow(),
  press: (method) => page[method](),
  leave() {
    page.onUnload();
    process.stdin.destroy();
  },
};

runInThisContext(readFileSync(snippet, "utf8").replace("https://pay.example.com", api));
createInterface({ input: process.stdin }).on("line", (line) => {
  for (const [name, value] of Object.entries(JSON.parse(line))) commands[name](value);
});
page.onLoad({ orderId });
page.onShow();
