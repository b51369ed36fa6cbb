// A web page around snippets/page.js: node page.mjs '{"api": …, "token": …, "input": …}'; prints {"paying": …}, {"state": …}.
import { WebSocket } from "ws";
import { pay, watch } from "./page.js";

globalThis.WebSocket = WebSocket;
const { api, token, input } = JSON.parse(process.argv[2]);
const payment = await pay(api, token, input);
console.log(JSON.stringify({ paying: payment }));
watch(api, token, payment.id, (state) => console.log(JSON.stringify({ state })));
