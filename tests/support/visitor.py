"""Somebody at a browser: clicks, types, looks, and keeps what the page asked for and complained about.

Over the page of `tests.examples.browser`; every act goes through the browser's own input, so that what is covered,
hidden or not focusable cannot be used.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.examples.browser import Page

_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), " ": (32, " "), "Backspace": (8, "")}
_SHIFT = 8

_NOT_YET = "catch (error) { if (error instanceof TypeError) return false; throw error }"

_PLACE = """(() => {
  const found = %s;
  if (!found) return null;
  found.scrollIntoView({block: "center", behavior: "instant"});
  const box = found.getBoundingClientRect();
  const at = [box.left + box.width / 2, box.top + box.height / 2];
  const top = document.elementFromPoint(...at);
  return found === top || found.contains(top) ? at : null;
})()"""


class Visitor:
    """One person at one page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        for domain in ("Runtime", "Log", "Network", "Page"):
            page.call(f"{domain}.enable")

    def visit(self, url: str, until: str = "document.body.dataset.link === 'live'") -> None:
        """Open an address as a page of its own, and wait for it."""
        self.leave()
        self.page.events.clear()
        self.page.open(url)
        self.page.until(f"document.readyState === 'complete' && document.body && Boolean({until})")

    def leave(self) -> None:
        """Leave the page, for the next one or before its server ends."""
        self.page.open("about:blank")
        self.page.until("location.href === 'about:blank'")

    def see(self, words: str, seconds: float = 30.0) -> None:
        """Wait until these words can be read on the page."""
        self.page.until(f"document.body.innerText.includes({json.dumps(words)})", seconds)

    def until(self, expression: str, seconds: float = 30.0) -> None:
        """Wait until this is true. What it looks for may not be there yet, since a page follows its address later."""
        self.page.until(f"(() => {{ try {{ return Boolean({expression}) }} {_NOT_YET} }})()", seconds)

    def value(self, expression: str) -> Any:
        return self.page.value(expression)

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    # --- acts -------------------------------------------------------------------------------------------

    def click(self, words: str, within: str = "body") -> None:
        """Click the first link, button or summary with exactly these words (or label), once it can be clicked."""
        find = (
            f"[...document.querySelectorAll({json.dumps(within)} + ' :is(a, button, summary)')].find(one => "
            f"one.innerText.trim() === {json.dumps(words)} || one.getAttribute('aria-label') === {json.dumps(words)})"
        )
        self._click(find)

    def click_at(self, selector: str) -> None:
        """Click the first element of this selector."""
        self._click(f"document.querySelector({json.dumps(selector)})")

    def _click(self, find: str) -> None:
        self.until(f"({_PLACE % find}) !== null")
        x, y = self.value(_PLACE % find)
        for kind in ("mousePressed", "mouseReleased"):
            self.page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        code, text = _KEYS.get(key, (ord(key.upper()[0]), key))
        modifiers = _SHIFT if shift else 0
        told = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.page.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
        self.page.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        self.page.call("Input.insertText", text=text)

    # --- circumstances ----------------------------------------------------------------------------------

    def screen(self, width: int, height: int, *, scale: float = 1.0) -> None:
        mobile = width < 600
        self.page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )

    def prefer(self, **features: str) -> None:
        """Media features: `prefer(color_scheme="dark", reduced_motion="reduce")`."""
        told = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()
        ]
        self.page.call("Emulation.setEmulatedMedia", features=told)

    # --- what came of it --------------------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, refusals of the policy, exceptions nobody caught."""
        self.value("0")  # reads what the browser has told meanwhile
        said = []
        for event in self.page.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                said.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in (
                "error",
                "warning",
                "assert",
            ):
                said.append(str(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return said

    def asked_for(self) -> list[str]:
        """The addresses of all requests since the page was opened."""
        self.value("0")
        return [
            event["params"]["request"]["url"]
            for event in self.page.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def photograph(self, path: Path, *, quality: int | None = None) -> None:
        """Keep what is on the screen, as PNG, or as WebP of this quality."""
        form: dict[str, Any] = (
            {"format": "png"} if quality is None else {"format": "webp", "quality": quality}
        )
        path.write_bytes(base64.b64decode(self.page.call("Page.captureScreenshot", **form)["data"]))
