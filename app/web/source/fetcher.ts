/** How GraphiQL reaches the API: queries and mutations by HTTP, subscriptions by graphql-transport-ws. */
import { Kind, type OperationDefinitionNode, OperationTypeNode, parse } from "graphql";
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

/** The operations of a document; none when it cannot be parsed, which is the server's to explain. */
function operationsIn(query: string): OperationDefinitionNode[] {
  try {
    return parse(query).definitions.filter((each) => each.kind === Kind.OPERATION_DEFINITION);
  } catch {
    return [];
  }
}

/** GraphiQL names the operation of the tab before when one presses right after changing tabs: one alone needs none. */
function settled(operation: Operation, operations: OperationDefinitionNode[]): Operation {
  const [only] = operations;
  return only && operations.length === 1 ? { ...operation, operationName: only.name?.value ?? null } : operation;
}

/** GraphiQL's fetcher. `seen` gets every result of a query or mutation. */
export function fetcher(seen: (result: unknown) => void) {
  return (asked: Operation, options?: { headers?: Headers }) => {
    const headers = options?.headers ?? {};
    const operations = operationsIn(asked.query);
    const operation = settled(asked, operations);
    const chosen = operations.find((each) => !operation.operationName || each.name?.value === operation.operationName);
    if (chosen?.operation === OperationTypeNode.SUBSCRIPTION) {
      return socketFor(headers).iterate(operation as Parameters<Client["iterate"]>[0]);
    }
    return post(operation, headers).then((result) => {
      seen(result);
      return result;
    });
  };
}
