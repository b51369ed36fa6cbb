/** How GraphiQL reaches the API: queries and mutations by HTTP, subscriptions by graphql-transport-ws. */
import { type Client, createClient } from "graphql-ws";

interface Operation {
  query: string;
  variables?: Record<string, unknown> | null;
  operationName?: string | null;
}

type Headers = Record<string, string>;

async function post(operation: Operation, headers: Headers): Promise<unknown> {
  const response = await fetch("/graphql", {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Accept: "application/graphql-response+json, application/json",
      ...headers,
    },
    body: JSON.stringify(operation),
  });
  return response.json();
}

/** One socket for each Authorization value: the principal of a socket is fixed when it opens. */
const sockets = new Map<string, Client>();

function socketFor(headers: Headers): Client {
  const authorization = Object.entries(headers).find(([name]) => name.toLowerCase() === "authorization")?.[1];
  const known = sockets.get(authorization ?? "");
  if (known) return known;
  const client = createClient({
    url: `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/graphql`,
    connectionParams: authorization ? { Authorization: authorization } : {},
    retryAttempts: Infinity,
    shouldRetry: () => true,
    keepAlive: 10_000,
  });
  sockets.set(authorization ?? "", client);
  return client;
}

/** The operation that will run is a subscription. A document with several is told apart by name. */
function isSubscription({ query, operationName }: Operation): boolean {
  const bare = query.replace(/#.*$/gm, "");
  return operationName
    ? new RegExp(`\\bsubscription\\s+${operationName}\\b`).test(bare)
    : /^\s*subscription\b/.test(bare);
}

/** GraphiQL's fetcher. `seen` gets every result of a query or mutation. */
export function fetcher(seen: (result: unknown) => void) {
  return (operation: Operation, options?: { headers?: Headers }) => {
    const headers = options?.headers ?? {};
    if (isSubscription(operation)) {
      return socketFor(headers).iterate(operation as Parameters<Client["iterate"]>[0]);
    }
    return post(operation, headers).then((result) => {
      seen(result);
      return result;
    });
  };
}
