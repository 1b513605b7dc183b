"""A headless Chromium, driven by its own protocol: pages, what they ask for, what they say, where things are."""

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

# without the last ones Chromium asks the network for things of its own
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars --disable-quic "
    "--disable-background-networking --disable-component-update --disable-sync --remote-debugging-port=0"
)


@dataclass
class Page:
    """What happened while a page was open."""

    evaluate: Callable[[str], Awaitable[Any]]
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def look_at(path: Path, width: int, look: Callable[[Page], Awaitable[Any]]) -> tuple[Page, Any]:
    """Opens a file at a width in pixels, and gives back the page and what `look` found."""
    return asyncio.run(_look_at(path, width, look))


async def _look_at(path: Path, width: int, look: Callable[[Page], Awaitable[Any]]) -> tuple[Page, Any]:
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [str(program()), *_FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                port = await _port(Path(profile))
                async with aiohttp.ClientSession() as session:
                    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                        (tab,) = (one for one in await answer.json() if one["type"] == "page")
                    async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                        return await _drive(socket, path, width, look)
            finally:
                browser.kill()


async def _port(profile: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        file = profile / "DevToolsActivePort"
        if file.exists() and file.read_text().strip():
            return int(file.read_text().split()[0])
        await asyncio.sleep(0.05)
    raise TimeoutError("Chromium did not start")


async def _drive(socket: Any, path: Path, width: int, look: Callable[[Page], Awaitable[Any]]) -> tuple[Page, Any]:
    waiting: dict[int, asyncio.Future[Any]] = {}
    loaded = asyncio.Event()

    async def ask(method: str, **parameters: Any) -> Any:
        number = len(waiting) + 1
        waiting[number] = asyncio.get_running_loop().create_future()
        await socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(waiting[number], 30)

    async def evaluate(script: str) -> Any:
        found = await ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    page = Page(evaluate)

    async def listen() -> None:
        async for message in socket:
            told = json.loads(message.data)
            if "id" in told:
                waiting[told["id"]].set_result(told.get("result", told.get("error")))
            elif told["method"] == "Network.requestWillBeSent":
                page.requests.append(told["params"]["request"]["url"])
            elif told["method"] == "Log.entryAdded":
                page.messages.append(told["params"]["entry"]["text"])
            elif told["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                page.messages.append(json.dumps(told["params"]))
            elif told["method"] == "Page.loadEventFired":
                loaded.set()

    listening = asyncio.create_task(listen())
    try:
        for domain in ("Network", "Log", "Runtime", "Page"):
            await ask(f"{domain}.enable")
        await ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        await ask("Emulation.setFocusEmulationEnabled", enabled=True)  # as in a window that somebody looks at
        await ask("Page.navigate", url=path.as_uri())
        await asyncio.wait_for(loaded.wait(), 60)
        return page, await look(page)
    finally:
        listening.cancel()
