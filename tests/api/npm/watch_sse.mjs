// The graphql-sse client, as it is: node watch_sse.mjs URL TOKEN PAYMENT
import { createClient } from "graphql-sse";

const [, , url, token, payment] = process.argv;
const client = createClient({ url, headers: { authorization: `Bearer ${token}` }, retryAttempts: 0 });
const query = "subscription ($id: ID!) { payment(id: $id, untilFinal: true) { id status version } }";
for await (const result of client.iterate({ query, variables: { id: payment } })) console.log(JSON.stringify({ payment: result }));
for await (const result of client.iterate({ query: "{" })) console.log(JSON.stringify({ syntax: result.errors[0].extensions.code }));
client.dispose();
