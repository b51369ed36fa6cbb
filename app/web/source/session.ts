/** Who the page acts as: the demo visitor, and where the server gives their tokens the operators; renewed by a cookie. */

export interface Product {
  id: string;
  title: string;
  note: string;
  amount: string;
  /** null but for memberships */
  intervalDays: number | null;
}

/** A way to pay that is on offer. Where it names its payer, either `openid` is given or `login` leads to one. */
export interface Way {
  method: string;
  appId: string | null;
  openid: string | null;
  /** Path of a WeChat login. */
  login: string | null;
}

export interface Session {
  userId: string;
  token: string;
  /** ISO 8601 */
  expiresAt: string;
  products: Product[];
  memberships: Product[];
  ways: Way[];
  sandboxUrl: string | null;
  graphiql: boolean;
  /** Whether this browser may open the clerk's page. */
  clerk: boolean;
  /** The operators' tokens, where the server gives them. */
  adminToken?: string | null;
  clerkToken?: string | null;
}

/** Whose token is sent. */
export type Who = "visitor" | "admin" | "clerk";

const TOKENS = { visitor: "token", admin: "adminToken", clerk: "clerkToken" } as const;

export interface DemoOrder {
  orderId: string;
  title: string;
  amount: string;
}

let session = JSON.parse(document.getElementById("page")?.textContent || "null") as Session;
let renewing: Promise<void> | undefined;

export const visitor = (): Session => session;

/** Gets a new token for the same visitor; calls made at once share one request. */
export function renewSession(): Promise<void> {
  renewing ??= fetch("/demo/session", { method: "POST" })
    .then(async (response) => {
      if (response.ok) session = await response.json();
    })
    .finally(() => {
      renewing = undefined;
    });
  return renewing;
}

/** A token good for another minute at least, as far as this device's clock can tell. */
export async function currentToken(who: Who): Promise<string> {
  if (Date.parse(session.expiresAt) - Date.now() < 60_000) await renewSession().catch(() => {});
  return session[TOKENS[who]] ?? "";
}

/** Inserts a row in the shop's own orders table, as the merchant's backend would. */
export async function createOrder(product: string): Promise<DemoOrder> {
  const response = await fetch("/demo/orders", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ product }),
  });
  if (!response.ok) throw new Error(`下单失败（HTTP ${response.status}）`);
  return response.json();
}
