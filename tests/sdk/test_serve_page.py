"""The kiosk page in a real browser, with a camera and a microphone that Chromium plays."""

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets", reason="websockets is not installed: pip install 'wanedge[serve]'")

from tests.browser import CHROMIUM, browsing
from tests.serving import CuttingProxy, serving
from wanedge.bundle import Bundle
from wanedge.model import Model

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123456789abcdef"
KIOSK = ("--autoplay-policy=no-user-gesture-required",)

# Keeps every track that the page opens, so that a test can pull it out.
TRACKS = """
globalThis.tracks = [];
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  if (globalThis.unplugged) throw new DOMException("unplugged", "NotFoundError");
  const stream = await open(wanted);
  globalThis.tracks.push(...stream.getTracks());
  return stream;
};
globalThis.unplug = () => {
  globalThis.unplugged = true;
  for (const track of globalThis.tracks.splice(0)) {
    track.stop();
    track.dispatchEvent(new Event("ended"));
  }
};
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(200):
            await test

    asyncio.run(bounded())


def test_the_page_answers_survives_cuts_and_lost_devices_and_keeps_its_policy(model: Model, tmp_path: Path) -> None:
    async def visit() -> None:
        async with (
            serving(model) as server,
            CuttingProxy(server.port) as proxy,
            browsing(proxy.url, flags=KIOSK, script=TRACKS) as page,
        ):
            await page.wait_for("wanedge.status().pictures.pictures > 4")
            status = await page.status()
            assert status["microphone"]["on"]
            assert status["camera"]["on"]
            session = status["session"]

            for cuts in (1, 2):
                assert proxy.cut() >= 1
                await page.wait_for(f"wanedge.status().connection.resumed === {cuts}")
                seen = (await page.status())["pictures"]["pictures"]
                await page.wait_for(f"wanedge.status().pictures.pictures > {seen + 4}")
                assert (await page.status())["session"] == session

            await page.evaluate("unplug()")
            await page.wait_for("wanedge.status().notice.startsWith('No ')")
            seen = (await page.status())["mediaMs"]
            await page.wait_for(f"wanedge.status().mediaMs > {seen + 300}")  # it goes on without devices
            await page.evaluate("globalThis.unplugged = false")
            await page.wait_for("wanedge.status().camera.on && wanedge.status().microphone.on")
            await page.wait_for("wanedge.status().notice === ''")

            assert await page.evaluate("document.getElementById('strip').hidden")
            await page.press("l")
            await page.wait_for("document.getElementById('strip').innerText.includes('heard to answer')")
            shot = tmp_path / "kiosk.png"
            await page.picture(shot)
            kept = ROOT / "out" / "tests" / "kiosk-page.png"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shot, kept)  # to be looked at
            assert [
                line for line in page.console if not line.startswith("warning: [")
            ] == []  # nor was its policy broken

    run(visit())


def test_a_browser_that_wants_a_touch_gets_a_button_and_the_token_comes_from_the_address(model: Model) -> None:
    async def visit() -> None:
        async with serving(model, token=TOKEN) as server, browsing(f"{server.url}#token={TOKEN}") as page:
            await page.wait_for("!document.getElementById('start').hidden")
            assert await page.evaluate("document.activeElement.id") == "begin"
            assert server.metrics["connections"] == 0
            await page.press("Enter")
            await page.wait_for("wanedge.status().pictures.pictures > 2")
            assert await page.evaluate("document.getElementById('start').hidden")

    run(visit())
