// The graphql-ws client, as it is: node watch_ws.mjs URL TOKEN PAYMENT ORDER
// Prints one JSON line per event; ends when the payment is final.
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [, , url, token, payment, order] = process.argv;
const say = (event) => console.log(JSON.stringify(event));
const client = createClient({
  url,
  webSocketImpl: WebSocket,
  connectionParams: { authorization: `Bearer ${token}` },
  keepAlive: 200,
  on: { connected: () => say({ connected: true }), pong: () => say({ pong: true }), closed: (e) => say({ closed: e.code }) },
});

const run = (request, each = () => {}) =>
  new Promise((resolve, reject) => {
    const results = [];
    const next = (result) => (results.push(result), each(result));
    client.subscribe(request, { next, error: reject, complete: () => resolve(results) });
  });

say({ query: await run({ query: "query ($id: ID!) { payment(id: $id) { id status } }", variables: { id: payment } }) });
await run({ query: "{" }).then(
  () => say({ syntax: "no error" }),
  (errors) => say({ syntax: errors.map((e) => e.extensions.code) }),
);
const orders = client.iterate({ query: "subscription ($id: ID!) { order(id: $id) { id data } }", variables: { id: order } });
say({ order: (await orders.next()).value });
const watch = "subscription ($id: ID!) { payment(id: $id, untilFinal: true) { id status version } }";
await run({ query: watch, variables: { id: payment } }, (result) => say({ payment: result }));
await orders.return();
await client.dispose();
