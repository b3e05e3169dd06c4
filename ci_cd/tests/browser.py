"""A real browser for the tests of pages: Chromium or Chrome without a window, spoken to over its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
ANSWER_S = 60


def find_browser() -> str | None:
    """The command of a browser on this machine; CHROME names another one."""
    named = os.environ.get("CHROME")
    found = [shutil.which(name) for name in ([named] if named else NAMES)]
    return next((path for path in [*found, *(p for p in PLACES if Path(p).is_file())] if path), None)


class Browser:
    """A browser with one page, for the length of a block.

    `requests` holds every address that the page asked for, other than the files opened.
    """

    def __init__(self, command: str, profile: Path) -> None:
        self.command = [command, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        self.command += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
        self.command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        self.profile = profile
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._count = 0

    def __enter__(self) -> "Browser":
        self.profile.mkdir(parents=True, exist_ok=True)
        (self.profile / "DevToolsActivePort").unlink(missing_ok=True)  # of a browser before this one
        with contextlib.ExitStack() as stack:
            log = stack.enter_context((self.profile / "log").open("wb"))
            self._process = subprocess.Popen(
                self.command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
            stack.callback(self._end)
            self._socket: ClientConnection = stack.enter_context(connect(self._find_address(), max_size=None))
            stack.callback(self._close)
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.send(f"{domain}.enable")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close(self) -> None:
        with contextlib.suppress(ConnectionClosed):  # it may be gone before it has answered
            self.send("Browser.close")

    def _end(self) -> None:
        """Wait for the browser that was asked to close, or end it with all that it started.

        The command may be a script that waits for the browser: a signal to it alone would leave the browser behind.
        """
        try:
            self._process.wait(10 if hasattr(self, "_socket") else 0)
        except subprocess.TimeoutExpired:
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
            self._process.wait(30)

    def _find_address(self) -> str:
        """Where the browser listens, which it writes into its profile once it does."""
        place = self.profile / "DevToolsActivePort"
        for _ in range(ANSWER_S * 10):
            lines = place.read_text(encoding="utf-8").split() if place.is_file() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        text = (self.profile / "log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{self.command[0]} does not start: {text[-2000:]}")

    def send(self, method: str, **params: object) -> dict[str, object]:
        """Send a command and return its result."""
        self._count += 1
        message: dict[str, object] = {"id": self._count, "method": method, "params": params}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict[str, object]:
        answer = json.loads(self._socket.recv(timeout=ANSWER_S))
        params = answer.get("params", {})
        if answer.get("method") == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.requests.append(params["request"]["url"])
        if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(json.dumps(params))
        self._seen = answer.get("method")
        return answer

    def open(self, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Open a file at a width in CSS pixels, in a light or dark colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Page.navigate", url=page.as_uri())
        while self._seen != "Page.loadEventFired":
            self._receive()
        self.requests = [address for address in self.requests if address != page.as_uri()]

    def evaluate(self, script: str) -> object:
        """Return the value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")  # type: ignore[attr-defined]

    def take_screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(str(answer["data"])))

    def print_pdf(self, path: Path, paper: Sequence[float] = (8.27, 11.69)) -> None:
        """Print the page to a file; paper in inches, A4 by default."""
        answer = self.send("Page.printToPDF", paperWidth=paper[0], paperHeight=paper[1], preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(str(answer["data"])))
