// A web page around snippets/club.js: node club.mjs '{"api": …, "token": …, "input": …}' prints {"joined": …}, then
// {"status": …, "shown": …} for each state, until it reads {"leave": true}.
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { join, shown, watchCycle } from "./club.js";

globalThis.WebSocket = WebSocket;
const { api, token, input } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
const cycle = await join(api, token, input);
say({ joined: cycle });
const end = watchCycle(api, token, cycle.id, (state) => say({ status: state.status, shown: shown(state) }));
createInterface({ input: process.stdin }).once("line", () => {
  end();
  process.stdin.destroy();
});
