import { createClient } from "graphql-ws";

const FIELDS = `id status final checking version action { __typename ... on Redirect { url } ... on QrCode { codeUrl }
  ... on WechatPayParams { appId timeStamp nonceStr package signType paySign } }`;

export async function send(api, token, query, variables) {
  const answer = await fetch(`${api}/graphql`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await answer.json();
  if (errors) throw new Error(errors[0].extensions.messageZh);
  return data;
}

/** input: orderId, method, subject, idempotencyKey …; the same key gives the same payment, so that it may be repeated. */
export async function pay(api, token, input) {
  const create = `mutation ($input: CreatePaymentInput!) { createPayment(input: $input) { ${FIELDS} } }`;
  return (await send(api, token, create, { input })).createPayment; // Redirect: location.href = payment.action.url
}

export const connect = (api, token) =>
  createClient({
    url: `${api.replace(/^http/, "ws")}/graphql`,
    connectionParams: { authorization: `Bearer ${token}` },
    retryAttempts: Infinity, // a deployment closes sockets with 1012; the next connection starts with the present state
    shouldRetry: () => true,
    keepAlive: 10_000,
  });

/** Calls onState with the present state, then with every change, until the payment is final. */
export function watch(api, token, paymentId, onState) {
  const client = connect(api, token);
  const query = `subscription ($id: ID!) { payment(id: $id, untilFinal: true) { ${FIELDS} } }`;
  return client.subscribe(
    { query, variables: { id: paymentId } },
    { next: ({ data }) => data && onState(data.payment), error: console.error, complete: () => client.dispose() },
  );
}

/** On a phone outside WeChat: goes on in the mini-program, such as path "pages/pay/pay" and query "orderId=42". */
export async function openMiniProgram(api, token, appId, path, query) {
  const make = `mutation ($input: CreateWechatLinkInput!) { createWechatLink(input: $input) { url } }`;
  const input = { appId, kind: "URL_LINK", path, query };
  location.href = (await send(api, token, make, { input })).createWechatLink.url;
}
