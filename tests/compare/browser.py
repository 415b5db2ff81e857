"""A headless Chromium that is spoken to over a pipe, so that tests need no driver and open no port."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), "")
PATIENCE = 60.0


class Browser:
    """One page, whose console messages, exceptions and requests are kept.

    Args:
        profile: An empty folder for the browser.
        dark: Ask for the page's dark colours.
    """

    def __init__(self, profile: Path, dark: bool = False, size: tuple[int, int] = (1280, 1000)) -> None:
        ours_in, theirs_out = _pipe()
        theirs_in, ours_out = _pipe()
        options = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                   "--disable-dev-shm-usage", f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
                   "--remote-debugging-pipe", "--no-sandbox"]  # fmt: skip
        # Chromium reads from descriptor 3 and writes to 4
        script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", script, CHROMIUM, *options, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._read, self._write, self._rest, self._number = ours_in, ours_out, b"", 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        target = next(item for item in self.send("Target.getTargets")["targetInfos"] if item["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        if dark:
            self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._read)
        os.close(self._write)

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.loaded = False
        self.send("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """Returns the value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def click(self, selector: str, right: float = 0.5, down: float = 0.5) -> None:
        """Clicks an element, at a part of its width and height from its upper left corner."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]; })()"
        )
        place = {"x": box[0] + right * box[2], "y": box[1] + down * box[3], "button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", buttons=1, **place)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def press(self, key: str, code: int) -> None:
        """Presses a key, by its name and Windows key code."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Writes a PNG of the page."""
        image = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(image["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the DevTools protocol and returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("The browser does not answer.")
            if not (part := os.read(self._read, 1 << 16)):
                raise RuntimeError(f"The browser ended with {self._process.wait()}.")
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        message = dict(json.loads(text))
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, content: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(content["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
            self.errors.append(str(content["args"]))
        elif method == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(content["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])


def _pipe() -> tuple[int, int]:
    """Returns the ends of a pipe, above the descriptors that Chromium uses."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]
