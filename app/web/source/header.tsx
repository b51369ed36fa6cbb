/** @jsxImportSource preact */
/** The line on top of the demo's pages. */
import type { Connection } from "./api";

const CONNECTION_WORDS: Record<Connection, string> = { open: "实时", connecting: "连接中", lost: "重连中" };

const PAGES = [
  ["/", "小店"],
  ["/demo/club", "会员"],
] as const;

/** `watching`: something hangs on the connection, so that its state is worth showing. */
export function Header({ connection, watching, name }: { connection: Connection; watching: boolean; name: string }) {
  return (
    <header>
      <div class="bar">
        <a class="brand" href="/">
          <Seal />
          <span>
            收银<small>{name}</small>
          </span>
        </a>
        <nav aria-label="小店的页面">
          {PAGES.map(([path, word]) => (
            <a key={path} href={path} aria-current={location.pathname === path ? "page" : undefined}>
              {word}
            </a>
          ))}
        </nav>
        <span class={`pill ${watching ? connection : "idle"}`}>
          <i aria-hidden="true" />
          {watching ? CONNECTION_WORDS[connection] : "沙箱环境"}
        </span>
      </div>
    </header>
  );
}

const Seal = () => (
  <svg class="seal" viewBox="0 0 32 32" width="32" height="32" aria-hidden="true">
    <rect width="32" height="32" rx="8" />
    <path d="M9.5 7.5 16 16l6.5-8.5M16 16v9.5M10 17h12M10 21.5h12" />
  </svg>
);
