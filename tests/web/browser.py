"""A real Chromium over the DevTools protocol: pages, presses, what they asked for and what they complained of.

Speaks the protocol itself, a few commands of it: a driver would bring its own browser, or a second runtime.
"""

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--password-store=basic",
    # Whatever a page or the browser itself would look up elsewhere does not exist here.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--remote-debugging-port=0",
)
_START_S = 30.0
_PATIENCE_S = 20.0


class PageError(AssertionError):
    """A script failed in the page, or what a test waits for did not come."""


@asynccontextmanager
async def chromium() -> AsyncIterator["Browser"]:
    """A browser with an empty profile. Skips the test where there is none to start."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on the PATH; install it (Debian: apt install chromium) to run the browser tests")
    profile = Path(tempfile.mkdtemp(prefix="shouyin-browser-"))
    process = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with (
            connect(await _debugger_address(process), max_size=None, compression=None, proxy=None) as socket,
            Browser(socket) as browser,
        ):
            yield browser
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        shutil.rmtree(profile, ignore_errors=True)


async def _debugger_address(process: asyncio.subprocess.Process) -> str:
    """The address Chromium prints once it listens."""
    assert process.stderr is not None
    async with asyncio.timeout(_START_S):
        async for line in process.stderr:
            if line.startswith(b"DevTools listening on "):
                return line.decode().removeprefix("DevTools listening on ").strip()
    raise PageError("Chromium ended before it listened")


class Browser:
    """One browser process and its pages, those that pages opened themselves included."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._reader: asyncio.Task[None] | None = None
        self._arrivals: asyncio.Queue[Page] = asyncio.Queue()
        self._context: str | None = None
        self.pages: dict[str, Page] = {}

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        # Pages opened by pages are stopped until our listening is set up, so that none of their requests is missed.
        await self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        await self._next_arrival()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        answer = self._answers[self._last_id] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(message))
        async with asyncio.timeout(_PATIENCE_S + 10):
            result: dict[str, Any] = await answer
        return result

    async def open(
        self, url: str, *, size: tuple[int, int] = (1280, 900), dark: bool = False, agent: str = "", built_in: str = ""
    ) -> "Page":
        """A new page of the given size, loaded; a narrow one is a phone.

        `agent` is what the browser calls itself; `built_in` a script that runs in every page before the page's own."""
        if self._context is None:
            await self.start_afresh()
        await self.call("Target.createTarget", url="about:blank", browserContextId=self._context)
        page = await self._next_arrival()
        await page.resize(*size, touch=size[0] < 600)
        await page.prefer_dark(dark)
        if agent:
            await page.call("Network.setUserAgentOverride", userAgent=agent)
        if built_in:
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=built_in)
        await page.goto(url)
        return page

    async def start_afresh(self) -> None:
        """Closes all pages and forgets what they stored: the next page is a new visitor's."""
        if self._context is not None:
            await self.call("Target.disposeBrowserContext", browserContextId=self._context)
        self._context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        self._arrivals = asyncio.Queue()
        self.pages.clear()

    async def opened_page(self) -> "Page":
        """The page that a page opens next, or has just opened."""
        return await self._next_arrival()

    async def _next_arrival(self) -> "Page":
        async with asyncio.timeout(_PATIENCE_S):
            return await self._arrivals.get()

    async def _read(self) -> None:
        setups: set[asyncio.Task[None]] = set()
        async for text in self._socket:
            message = json.loads(text)
            answer = self._answers.pop(message.get("id", 0), None)
            if answer is not None:
                if not answer.done():
                    if "error" in message:
                        answer.set_exception(PageError(message["error"]["message"]))
                    else:
                        answer.set_result(message["result"])
            elif message.get("method") == "Target.attachedToTarget":
                setup = asyncio.create_task(self._attach(message["params"]))
                setups.add(setup)
                setup.add_done_callback(setups.discard)
            elif (page := self.pages.get(message.get("sessionId", ""))) is not None:
                page.notice(message["method"], message["params"])

    async def _attach(self, params: dict[str, Any]) -> None:
        session = params["sessionId"]
        if params["targetInfo"]["type"] != "page":
            await self.call("Runtime.runIfWaitingForDebugger", session)
            return
        page = self.pages[session] = Page(self, session)
        # Sent in one go: a page whose process is not there yet answers nothing before it may run.
        setup = [f"{domain}.enable" for domain in ("Page", "Runtime", "Network", "Log")]
        await asyncio.gather(*(self.call(each, session) for each in [*setup, "Runtime.runIfWaitingForDebugger"]))
        self._arrivals.put_nowait(page)


class Page:
    """One page. `complaints` are console errors, uncaught exceptions and refusals of the content policy."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loads = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command for this page."""
        return await self._browser.call(method, self._session, **params)

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """Takes in one event of the protocol."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.complaints.append(" ".join(str(each.get("value", each.get("description"))) for each in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Page.loadEventFired":
            self.loads += 1

    @property
    def foreign_requests(self) -> list[str]:
        """What the page asked of anything but this machine."""
        local = ("127.0.0.1", "localhost")
        return [
            url
            for url in self.requests
            if urlsplit(url).scheme not in ("data", "blob", "about", "chrome") and urlsplit(url).hostname not in local
        ]

    async def goto(self, url: str) -> None:
        """Loads an address and waits until it is loaded."""
        await self.call("Page.navigate", url=url)
        await self.wait(f"document.readyState === 'complete' && location.href !== 'about:blank' && {json.dumps(url)}")

    async def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    async def wait(self, condition: str, *, patience_s: float = _PATIENCE_S) -> Any:
        """The first truthy value of an expression. Survives that the page navigates meanwhile.

        Raises PageError with what the page shows instead."""
        probe = (
            "new Promise(resolve => { const look = () => { let value; try { value = (" + condition + "); } catch {}"
            " value ? resolve(value instanceof Node || value) : setTimeout(look, 15); }; look(); })"
        )
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    try:
                        return await self.run(probe)
                    except PageError as exc:
                        if "context was destroyed" not in str(exc) and "navigated" not in str(exc):
                            raise
        except TimeoutError:
            shown = await self.run("document.body.innerText.slice(0, 1500)")
            raise PageError(f"never came true: {condition}\nthe page: {shown}\ncomplaints: {self.complaints}") from None

    async def press(self, selector: str, text: str | None = None) -> None:
        """Presses the middle of an element with the mouse, as a person would, once it is there and enabled.

        With `text` it is the first that shows exactly this."""
        found = f"document.querySelector({json.dumps(selector)})"
        if text is not None:
            found = (
                f"[...document.querySelectorAll({json.dumps(selector)})]"
                f".find(element => element.innerText.trim() === {json.dumps(text)})"
            )
        await self.wait(f"{found} && !{found}.disabled")
        place = await self.run(
            f"(() => {{ const element = {found};"
            " element.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            " const box = element.getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        await self.call("Page.bringToFront")
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    async def text(self, selector: str) -> str:
        """The text an element shows."""
        shown: str = await self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return shown

    async def resize(self, width: int, height: int, *, touch: bool = False) -> None:
        """Gives the page the size, and with `touch` the pointer, of a device."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=touch
        )
        await self.call("Emulation.setTouchEmulationEnabled", enabled=touch)

    async def prefer_dark(self, dark: bool) -> None:
        """Switches between the light and the dark look."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Writes what the page looks like as PNG; `whole` includes what one would scroll to."""
        await self.call("Page.bringToFront")  # a page behind another one is never drawn
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))
