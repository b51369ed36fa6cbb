"""The frame and the style of every sandbox page: phone first, light and dark, nothing loaded from anywhere.

A page may contain one live part: an element that the script fills again and again from its own URL, so that what
happens elsewhere shows without reloading. Without JavaScript the page is simply as old as its last load.
"""

import secrets
from datetime import datetime

from starlette.responses import HTMLResponse, Response

from app.sandbox.clock import format_beijing
from app.sandbox.markup import Markup, fill

_FRAME = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="{charset}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style nonce="{nonce}">{style}</style>
</head>
<body>
<main>
{body}
</main>
<script nonce="{nonce}">{script}</script>
</body>
</html>
"""

_LIVE = '<div data-live="{url}">{content}</div>'

_STYLE = Markup("""
:root {
  --paper: #f4f5f7; --card: #fff; --ink: #1c2024; --quiet: #606871; --line: #dfe3e8;
  --accent: #1262d6; --on-accent: #fff; --good: #11703a; --bad: #b3261e; --waiting: #8a5a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #101317; --card: #1a1f25; --ink: #e9edf1; --quiet: #a0a9b3; --line: #313941;
    --accent: #79acff; --on-accent: #06204a; --good: #6fd79b; --bad: #ff9a92; --waiting: #f0c274;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
main { max-width: 40rem; margin: 0 auto; padding: 1rem; display: grid; gap: 1rem; }
main > *, [data-live] > * { min-width: 0; }
[data-live] { display: grid; gap: 1rem; }
h1 { font-size: 1.25rem; margin: .25rem 0 0; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: 0; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem; }
.quiet { color: var(--quiet); font-size: .875rem; }
.amount { font-size: 2.25rem; font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums; }
.state { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); } .waiting { color: var(--waiting); }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: .75rem 0 0; font-size: .9375rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; text-align: right; }
button, a.button { display: block; width: 100%; min-height: 2.75rem; padding: .5rem 1rem; border-radius: 10px;
  border: 1px solid var(--line); background: var(--card); color: var(--ink); font: inherit; font-weight: 550;
  text-align: center; text-decoration: none; cursor: pointer; }
button.primary, a.primary { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
button:focus-visible, a:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
form { margin: 0; }
input:not([type=checkbox]) { width: 100%; min-height: 2.75rem; padding: .5rem .75rem; border-radius: 10px;
  border: 1px solid var(--line); background: var(--paper); color: var(--ink); font: inherit; }
label.tick { display: flex; gap: .5rem; align-items: center; min-height: 2.75rem; }
label.tick input { width: 1.25rem; height: 1.25rem; margin: 0; accent-color: var(--accent); }
input:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.actions { display: grid; gap: .75rem; }
.choice { display: grid; gap: .25rem; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: .5rem; }
.row button { width: auto; flex: 1 0 auto; }
ul { list-style: none; margin: 0; padding: 0; }
.trades > li { border-top: 1px solid var(--line); padding: .75rem 0; display: grid; gap: .125rem; }
.trades > li:first-child { border-top: 0; padding-top: 0; }
.trades > li:last-child { padding-bottom: 0; }
.trades a { color: var(--accent); font-weight: 600; overflow-wrap: anywhere; }
.spread { display: flex; justify-content: space-between; gap: 1rem; align-items: baseline; }
code { font-family: ui-monospace, "SFMono-Regular", Menlo, monospace; font-size: .875em; overflow-wrap: anywhere; }
""")

_SCRIPT = Markup("""
for (const part of document.querySelectorAll("[data-live]")) {
  let shown = "";
  const refresh = async () => {
    if (document.hidden || part.matches(":has(button:active)")) return;
    try {
      const answer = await fetch(part.dataset.live, { cache: "no-store" });
      if (!answer.ok) return;
      const text = await answer.text();
      if (text === shown) return;
      const first = shown === "";
      shown = text;
      if (!first || part.innerHTML.trim() !== text.trim()) part.innerHTML = text;
    } catch { /* the sandbox is restarting; the next round tells */ }
  };
  setInterval(refresh, 1500);
  document.addEventListener("visibilitychange", refresh);
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button) return;
  button.disabled = true;
  await fetch(button.dataset.post, {
    method: "POST", headers: { "content-type": "application/json" }, body: button.dataset.body || "{}",
  }).finally(() => { button.disabled = false; });
});
""")


def live(url: str, content: Markup) -> Markup:
    """A part of a page that keeps itself up to date from `url`, which answers the same HTML."""
    return fill(_LIVE, url=url, content=content)


def framed(title: str, body: Markup, *, status: int = 200, charset: str = "utf-8") -> Response:
    """A whole page. Only its own style and script may run in it; it may stand in a merchant's frame."""
    nonce = secrets.token_urlsafe(12)
    html = fill(_FRAME, title=title, body=body, nonce=nonce, charset=charset, style=_STYLE, script=_SCRIPT)
    own = f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:"
    return Response(
        html.encode(charset, "xmlcharrefreplace"),
        status_code=status,
        headers={
            "content-type": f"text/html;charset={charset}",
            "content-security-policy": f"default-src 'none'; {own}; base-uri 'none'",
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
        },
    )


def fragment(content: Markup) -> Response:
    """What a live part asks for."""
    return HTMLResponse(content, headers={"cache-control": "no-store"})


def clock_text(instant: datetime) -> Markup:
    return fill("<time>{text}</time>", text=format_beijing(instant))
