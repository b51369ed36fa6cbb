/**
 * The shop page's two connections: mutations over HTTP, live values over one WebSocket.
 *
 * Nothing here decides what a payment's state is. The page shows what the server's record says and nothing else:
 * neither the return from the cashier nor a lost connection counts as a result.
 */
import { type Client, createClient } from "graphql-ws";
import { currentToken, renewSession, type Who } from "./session";

/** The server answered and said no. `code` is stable; `message` is meant for the payer; `more` is what else it said. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly more: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
  }
}

/** No usable answer arrived: the request may or may not have had its effect. */
export class Unreachable extends Error {}

interface WireError {
  message: string;
  extensions?: { code?: string; messageZh?: string; [more: string]: unknown };
}

function refusal(errors: readonly WireError[]): Refused {
  const first = errors[0];
  return new Refused(
    first?.extensions?.code ?? "INTERNAL",
    first?.extensions?.messageZh ?? first?.message ?? "服务器没有说明原因",
    first?.extensions,
  );
}

/** Sends one operation. Raises Refused or Unreachable; after Unreachable it is repeated only under the same key. */
export async function send<T>(query: string, variables: Record<string, unknown>, who: Who = "visitor"): Promise<T> {
  let answer: { data?: T | null; errors?: WireError[] };
  try {
    const response = await fetch("/graphql", {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Accept: "application/graphql-response+json, application/json",
        Authorization: `Bearer ${await currentToken(who)}`,
      },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.timeout(20_000),
    });
    answer = await response.json();
  } catch (cause) {
    throw new Unreachable("没有收到服务器的回答", { cause });
  }
  if (answer.errors?.length) throw refusal(answer.errors);
  if (!answer.data) throw new Unreachable("服务器的回答不完整");
  return answer.data;
}

const ATTEMPTS = 6;

/** A key that is new for each press of a button; works without a secure context too (a phone on the LAN). */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Sends a mutation whose input has a key; a lost answer is asked for again under it, so that it never happens twice. */
export async function sendOnce<T>(
  query: string,
  input: { idempotencyKey: string } & Record<string, unknown>,
  report: (text: string) => void,
  who: Who = "visitor",
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await send<T>(query, { input }, who);
    } catch (error) {
      if (!(error instanceof Unreachable) || attempt === ATTEMPTS) throw error;
      report(`没有收到回答，用同一个幂等键再试（第 ${attempt + 1} 次）`);
      await new Promise((resume) => setTimeout(resume, 400 * 2 ** attempt));
    }
  }
}

export type Connection = "connecting" | "open" | "lost";

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 10_000;

function waitBefore(attempt: number): number {
  // Jitter, so that pages thrown out by one restart do not come back in one wave.
  return Math.min(FIRST_WAIT_MS * 2 ** attempt, LONGEST_WAIT_MS) * (0.5 + Math.random());
}

/** Opens the socket with the first watch and keeps trying for as long as anything is watched. */
export function connect(report: (state: Connection, detail?: string) => void, who: Who = "visitor"): Client {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  let socket: WebSocket | undefined;
  let silence: ReturnType<typeof setTimeout> | undefined;
  const client = createClient({
    url: `${scheme}//${location.host}/graphql`,
    connectionParams: async () => ({ Authorization: `Bearer ${await currentToken(who)}` }),
    // The library's own default is five attempts, and then silence.
    retryAttempts: Infinity,
    shouldRetry: () => true,
    retryWait: (attempt) => new Promise((resume) => setTimeout(resume, waitBefore(attempt))),
    // A phone that slept, or a lost network, leaves a socket that looks open: unanswered pings are what tells.
    keepAlive: 10_000,
    on: {
      connecting: () => report("connecting"),
      opened: (opened) => {
        socket = opened as WebSocket;
      },
      connected: () => report("open"),
      ping: (received) => {
        if (!received) silence = setTimeout(() => socket?.close(4408, "no pong"), 5_000);
      },
      pong: (received) => {
        if (received) clearTimeout(silence);
      },
      closed: (event) => {
        clearTimeout(silence);
        report("lost", String((event as CloseEvent).code));
      },
    },
  });
  // Waiting out a back-off makes no sense once the browser says that the network is there again.
  addEventListener("online", () => client.terminate());
  return client;
}

/**
 * Watches one subscription until `done()` is true or the returned function is called.
 *
 * `retryAttempts` does not cover close codes the library takes for fatal (1011 is one, which servers send when a ping
 * times out), nor a stream that the server ends early; here both are started again.
 */
export function watch<T>(
  client: Client,
  operation: { query: string; variables: Record<string, unknown> },
  on: { value: (data: T) => void; refused: (error: Refused) => void; done: () => boolean },
): () => void {
  let stopped = false;
  let attempt = 0;
  let dispose = () => {};
  let timer: ReturnType<typeof setTimeout> | undefined;
  const again = () => {
    if (!stopped && !on.done()) timer = setTimeout(start, waitBefore(attempt++));
  };
  const refuse = async (errors: readonly WireError[]) => {
    const error = refusal(errors);
    if (error.code !== "UNAUTHENTICATED") return on.refused(error);
    // An expired token ends its streams; a new one resumes them, on a new socket.
    await renewSession();
    client.terminate();
    again();
  };
  function start() {
    dispose = client.subscribe<T>(operation, {
      next: ({ data, errors }) => {
        attempt = 0;
        if (data) on.value(data);
        else if (errors) void refuse(errors as unknown as WireError[]);
      },
      error: (reason) => (Array.isArray(reason) ? void refuse(reason as WireError[]) : again()),
      complete: again,
    });
  }
  start();
  return () => {
    stopped = true;
    clearTimeout(timer);
    dispose();
  };
}
