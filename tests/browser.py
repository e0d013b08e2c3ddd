"""Headless Chromium with a camera and a microphone that are files, driven over its DevTools protocol."""

import asyncio
import base64
import http.client
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_S = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--mute-audio",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-port=0",
)


class Page:
    """One page. Results of the protocol are plain dictionaries."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.console: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._ids)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(START_S):
            return await reply

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited. Raises RuntimeError when it throws."""
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:600])
        return result["result"].get("value")

    async def status(self) -> dict[str, Any]:
        """What the kiosk page says about itself."""
        status: dict[str, Any] = await self.evaluate("globalThis.wanedge ? wanedge.status() : {}")
        return status

    async def wait_for(self, expression: str, seconds: float = START_S) -> float:
        """Wait until a JavaScript expression is true; returns how long that took, in seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not await self.evaluate(f"Boolean(globalThis.wanedge && ({expression}))"):
            if loop.time() - began > seconds:
                said = "; ".join(self.console[-5:])
                raise TimeoutError(f"not within {seconds:g} s: {expression}; {await self.status()}; {said}")
            await asyncio.sleep(0.02)
        return loop.time() - began

    async def press(self, key: str) -> None:
        """Press a letter or Enter."""
        text, code = ("\r", 13) if key == "Enter" else (key, ord(key.upper()))
        event = {"key": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def picture(self, path: Path) -> None:
        """Write a PNG of the page."""
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def _read(self) -> None:
        with suppress(ConnectionClosed):  # the browser ends
            while True:
                self._take(json.loads(await self._socket.recv()))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            reply = self._replies.pop(message["id"])
            if "error" in message and not reply.done():
                reply.set_exception(RuntimeError(message["error"]["message"]))
            elif not reply.done():  # the caller may have given up
                reply.set_result(message["result"])
        elif message["method"] == "Runtime.consoleAPICalled":
            words = [str(part.get("value", part.get("description"))) for part in message["params"]["args"]]
            self.console.append(f"{message['params']['type']}: {' '.join(words)}")
        elif message["method"] == "Runtime.exceptionThrown":
            self.console.append(f"exception: {json.dumps(message['params']['exceptionDetails'])[:500]}")
        elif message["method"] == "Log.entryAdded":
            self.console.append(f"{message['params']['entry']['level']}: {message['params']['entry']['text']}")


@asynccontextmanager
async def browsing(
    url: str,
    *,
    sound: Path | None = None,
    size: tuple[int, int] = (1280, 720),
    flags: Sequence[str] = (),
    script: str = "",
    policy: bool = True,
) -> AsyncIterator[Page]:
    """A page at `url`. sound: WAV that the microphone plays once, instead of Chromium's beeps. script: JavaScript that
    runs before that of the page. policy: the page's content security policy holds."""
    assert CHROMIUM is not None, "Chromium is not installed: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        microphone = [f"--use-file-for-fake-audio-capture={sound}%noloop"] if sound is not None else []
        command = [CHROMIUM, *FLAGS, *microphone, *flags, f"--user-data-dir={folder}"]
        command += [f"--window-size={size[0]},{size[1]}", "about:blank"]
        log = Path(folder) / "chromium.log"
        with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                port = await _debugging_port(Path(folder), process, log)
                async with connect(await _page_address(port), max_size=None, proxy=None, ping_interval=None) as socket:
                    page = Page(socket)
                    await page.call("Page.enable")
                    await page.call("Runtime.enable")
                    await page.call("Log.enable")
                    await page.call(
                        "Emulation.setDeviceMetricsOverride",
                        width=size[0],
                        height=size[1],
                        deviceScaleFactor=1,
                        mobile=False,
                    )
                    await page.call("Page.setBypassCSP", enabled=not policy)
                    if script:
                        await page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
                    await page.call("Page.navigate", url=url)
                    yield page
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


async def _debugging_port(folder: Path, process: "subprocess.Popen[bytes]", log: Path) -> int:
    file = folder / "DevToolsActivePort"
    async with asyncio.timeout(START_S):
        while not (file.exists() and file.read_text().count("\n")):
            if process.poll() is not None:
                raise RuntimeError(f"Chromium ended: {log.read_text()[-600:]}")
            await asyncio.sleep(0.05)
    return int(file.read_text().splitlines()[0])


async def _page_address(port: int) -> str:
    """The WebSocket of the first page, from the list that Chromium serves."""
    async with asyncio.timeout(START_S):
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
            connection.request("GET", "/json/list")
            pages = [target for target in json.loads(connection.getresponse().read()) if target["type"] == "page"]
            connection.close()
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
            await asyncio.sleep(0.05)
