# SPDX-License-Identifier: GPL-2.0-or-later
"""A browser without a screen, spoken to in the DevTools protocol over two pipes."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time

PROGRAM = next((p for p in map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome")) if p), None)
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-extensions", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--remote-debugging-pipe"]
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "ArrowDown": (40, ""), "ArrowUp": (38, ""), "ArrowLeft": (37, ""), "ArrowRight": (39, "")}


def give(theirs_in, theirs_out):
    """Where the browser looks for them: 3 and 4, whatever is there."""
    aside = fcntl.fcntl(theirs_in, fcntl.F_DUPFD, 10), fcntl.fcntl(theirs_out, fcntl.F_DUPFD, 10)
    os.dup2(aside[0], 3)
    os.dup2(aside[1], 4)


class Browser:
    """One page."""

    def __init__(self):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.profile = tempfile.mkdtemp(prefix="godwit-browser-")
        self.process = subprocess.Popen([PROGRAM, *OPTIONS, f"--user-data-dir={self.profile}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        pass_fds=(3, 4), preexec_fn=lambda: give(theirs_in, theirs_out))
        os.close(theirs_in)
        os.close(theirs_out)
        self.input, self.output = os.fdopen(ours_in, "rb", buffering=0), os.fdopen(ours_out, "wb", buffering=0)
        self.rest, self.number, self.session, self.said, self.failed_requests = b"", 0, None, [], []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def take(self):
        while b"\0" not in self.rest:
            piece = self.input.read(1 << 16)
            assert piece, "the browser has ended"
            self.rest += piece
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def hear(self, message):
        what, p = message.get("method"), message.get("params", {})
        if what == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
            self.said.append(p["entry"]["text"])
        elif what == "Runtime.exceptionThrown":
            self.said.append(p["exceptionDetails"].get("exception", {}).get("description") or p["exceptionDetails"]["text"])
        elif what == "Network.requestWillBeSent" and not p["request"]["url"].startswith(("http://localhost", "data:", "about:", "blob:")):
            self.failed_requests.append(p["request"]["url"])

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **({"sessionId": self.session} if self.session and not method.startswith(("Target.get", "Browser.")) else {})}
        self.output.write(json.dumps(message).encode() + b"\0")
        while True:
            said = self.take()
            if said.get("id") == self.number:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]
            self.hear(said)

    def run(self, expression):
        """What an expression of the page comes to."""
        said = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, f"{expression}: {said['exceptionDetails']}"
        return said["result"].get("value")

    def until(self, what, expression, seconds=20):
        end = time.monotonic() + seconds
        while not (value := self.run(expression)):
            assert time.monotonic() < end, f"{what}: not within {seconds} s; the browser said {self.said}; the page: {self.run('document.body.innerText')[:2000]}"
            time.sleep(0.05)
        return value

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("it is there", "document.readyState === 'complete'")

    def size(self, width, height, scale=1, dark=False, calm=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}, {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"}])

    def key(self, name):
        code, text = KEYS.get(name, (ord(name.upper()[0]), name))
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code, **({"text": text} if text and kind == "keyDown" else {}))

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=0 if kind == "mouseReleased" else 1, clickCount=1, **more)

    def drag(self, start, end, steps=8):
        self.mouse("mousePressed", *start)
        for i in range(1, steps + 1):
            self.mouse("mouseMoved", *(a + (b - a) * i / steps for a, b in zip(start, end)))
        self.mouse("mouseReleased", *end)

    def centre(self, selector):
        return self.run(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'nearest'}}); const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()")

    def picture(self, path, whole=False):
        more = {"captureBeyondViewport": True} if whole else {}
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"]))
