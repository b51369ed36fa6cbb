/**
 * GraphiQL, with tabs ready to press.
 *
 * The page brings a development token where the server gives one. Tokens stay in memory: what is kept between visits
 * is the text of the tabs, never their headers.
 */
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import { useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { CYCLE_PLACEHOLDER, type Example, examples, PAYMENT_PLACEHOLDER } from "./examples";
import { fetcher } from "./fetcher";
import "graphiql/style.css";
import "./graphiql.css";

declare const WORKERS: { editor: string; json: string; graphql: string };

interface Page {
  token: string | null;
  demo: boolean;
  assets: string;
}

/** A development session: a user who owns the order, and the operators' tokens where the server trusts this visitor. */
interface Opening {
  token: string | null;
  adminToken: string | null;
  clerkToken: string | null;
  orderId: string;
  /** The deployment's time, ISO 8601; a test clock may have moved it. */
  now: string;
}

const page = JSON.parse(document.getElementById("page")!.textContent!) as Page;

Object.assign(globalThis, {
  MonacoEnvironment: {
    getWorker: (_: unknown, label: string) =>
      new Worker(`${page.assets}/${label === "json" || label === "graphql" ? WORKERS[label] : WORKERS.editor}`),
  },
});

const KEPT = "shouyin:tabs:1";

const headersWith = (token: string | null) => JSON.stringify({ Authorization: `Bearer ${token ?? "<token>"}` }, null, 2);

interface Tab {
  query: string | null;
  variables: string | null;
}

const asTab = ({ query, variables }: Example): Tab => ({
  query,
  variables: Object.keys(variables).length ? JSON.stringify(variables, null, 2) : "",
});

const ORDER = "shouyin:order";
const DAY_MS = 86_400_000;

/** Asks the demo shop for a visitor and an order to play with; without the demo there is neither. */
async function open(): Promise<Opening> {
  const bare: Opening = { token: page.token, adminToken: null, clerkToken: null, orderId: "1", now: new Date().toISOString() };
  if (!page.demo) return bare;
  const post = async (path: string, body: unknown, token?: string) => {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const response = await globalThis.fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${path}: HTTP ${response.status}`);
    return response.json();
  };
  try {
    const { token, adminToken, clerkToken, userId } = await post("/demo/session", {});
    const { now } = (await post("/graphql", { query: "{ clock { now } }" }, token)).data.clock;
    const kept = JSON.parse(sessionStorage.getItem(ORDER) ?? "null");
    if (kept?.userId === userId) return { token, adminToken, clerkToken, orderId: kept.orderId, now };
    const { orderId } = await post("/demo/orders", { product: "cup" });
    sessionStorage.setItem(ORDER, JSON.stringify({ userId, orderId }));
    return { token, adminToken, clerkToken, orderId, now };
  } catch {
    return bare;
  }
}

/** Tabs of the last visit in this browser tab, or the examples. An operator's examples keep their token. */
function openingTabs({ token, adminToken, clerkToken, orderId, now }: Opening) {
  const fresh = examples(orderId, new Date(Date.parse(now) + DAY_MS).toISOString());
  let tabs = fresh.map(asTab);
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null") as Tab[] | null;
    if (kept?.length) tabs = kept;
  } catch {
    // An unreadable note is as good as none.
  }
  const tokens = { admin: adminToken, clerk: clerkToken };
  const tokenOf = new Map(fresh.map(({ query, as }) => [query, as && tokens[as]]));
  return tabs.map((tab) => ({
    ...tab,
    headers: headersWith(tokenOf.get(tab.query ?? "") ?? token),
  }));
}

/**
 * GraphiQL's own storage, without headers: its history would keep every token ever used.
 *
 * The state of its tabs is left out altogether, because KEPT holds that. Entries of the history get the present
 * headers when they are read.
 */
function storageWithout(headers: string): Storage {
  const left = /:(tabState|query|variables|headers)$/;
  const history = /:(queries|favorites)$/;
  const swap = (text: string, by: string | undefined) => {
    const entries = JSON.parse(text) as Record<string, Record<string, unknown>[]>;
    for (const list of Object.values(entries)) for (const entry of list) entry.headers = by;
    return JSON.stringify(entries);
  };
  return {
    getItem(key: string) {
      const text = left.test(key) ? null : localStorage.getItem(key);
      return text && history.test(key) ? swap(text, headers) : text;
    },
    setItem(key: string, text: string) {
      if (!left.test(key)) localStorage.setItem(key, history.test(key) ? swap(text, undefined) : text);
    },
    removeItem: (key: string) => localStorage.removeItem(key),
    clear: () => localStorage.clear(),
    key: (index: number) => localStorage.key(index),
    get length() {
      return localStorage.length;
    },
  };
}

/** Placeholder → the id it stands for, once there is one. */
const made = new Map<string, string>();

function noteCreated(result: unknown): void {
  const data = (result as { data?: Record<string, { id?: string } | null> | null } | null)?.data;
  for (const [field, placeholder] of [
    ["createPayment", PAYMENT_PLACEHOLDER],
    ["startCyclePayment", CYCLE_PLACEHOLDER],
  ] as const) {
    const id = data?.[field]?.id;
    if (id) made.set(placeholder, id);
  }
}

const fetch = fetcher(noteCreated);

/** Puts the id that was made last where an example waits for one, in the tab on the screen. */
function FillIn() {
  const { variableEditor, activeTabIndex } = useGraphiQL((state) => ({
    variableEditor: state.variableEditor,
    activeTabIndex: state.activeTabIndex,
  }));
  const { updateActiveTabValues } = useGraphiQLActions();
  useEffect(() => {
    const text = variableEditor?.getValue() ?? "";
    const found = [...made].find(([placeholder]) => text.includes(placeholder));
    if (!found) return;
    const variables = text.replace(...found);
    variableEditor?.setValue(variables);
    updateActiveTabValues({ variables });
  }, [variableEditor, activeTabIndex, updateActiveTabValues]);
  return null;
}

function restore(): void {
  sessionStorage.removeItem(KEPT);
  sessionStorage.removeItem(ORDER);
  location.reload();
}

function App({ opening }: { opening: Opening }) {
  const [tabs] = useState(() => openingTabs(opening));
  const [storage] = useState(() => storageWithout(headersWith(opening.token)));
  return (
    <GraphiQL
      fetcher={fetch as Parameters<typeof GraphiQL>[0]["fetcher"]}
      storage={storage}
      defaultTabs={tabs}
      defaultHeaders={headersWith(opening.token)}
      initialHeaders={tabs[0]?.headers ?? ""}
      initialVariables={tabs[0]?.variables ?? ""}
      defaultEditorToolsVisibility="variables"
      shouldPersistHeaders={false}
      showPersistHeadersSettings={false}
      plugins={[HISTORY_PLUGIN]}
      onTabChange={(state) => {
        const kept = state.tabs.map(({ query, variables }) => ({ query, variables }));
        sessionStorage.setItem(KEPT, JSON.stringify(kept));
      }}
    >
      <GraphiQL.Logo>
        {page.demo ? <a href="/">← 演示小店</a> : <span>Shouyin 收银</span>}
        <button type="button" onClick={restore} title="放弃改动，恢复最初的示例操作，换一张新订单">
          恢复示例
        </button>
      </GraphiQL.Logo>
      <FillIn />
    </GraphiQL>
  );
}

createRoot(document.getElementById("graphiql")!).render(<App opening={await open()} />);
