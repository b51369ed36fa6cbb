// A web page around snippets/page.js: node page.mjs '{"api": …, "token": …, "input": …}' prints {"paying": …} and
// {"state": …}; with "wake": [appId, path, query] instead of "input" it goes to a mini-program and prints {"left": url}.
import { WebSocket } from "ws";
import { openMiniProgram, pay, watch } from "./page.js";

globalThis.WebSocket = WebSocket;
const { api, token, input, wake } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
if (wake) {
  globalThis.location = {};
  await openMiniProgram(api, token, ...wake);
  say({ left: location.href });
} else {
  const payment = await pay(api, token, input);
  say({ paying: payment });
  watch(api, token, payment.id, (state) => say({ state }));
}
