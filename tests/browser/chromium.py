"""Debian's Chromium, without background requests of its own.

One process serves many tests, as starting one takes seconds of a core: a browser is a window, and what it
leaves behind is cleared.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

QUIET = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")


def missing() -> str:
    """Say why no browser can be started; empty where one can."""
    if shutil.which("chromium") and shutil.which("chromedriver") and importlib.util.find_spec("selenium"):
        return ""
    return "no Chromium, chromedriver or selenium: `apt-get install chromium chromium-driver`"


class Chromiums:
    """Processes that stay from one test to the next; their profiles lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Any] = []
        self.idle: dict[bool, list[Any]] = {True: [], False: []}  # by whether scripts run

    @contextmanager
    def browsers(self) -> Iterator[Callable[..., Any]]:
        """Yield a function that opens a browser, of a width, light or dark; all are closed at the end."""
        with ExitStack() as opened:

            def start(
                width: int = 1280, height: int = 900, *, dark: bool = False, script: bool = True
            ) -> Any:
                browser = opened.enter_context(self._window(script=script))
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
                browser.implicitly_wait(0)
                return browser

            yield start

    @contextmanager
    def _window(self, *, script: bool) -> Iterator[Any]:
        browser = self.idle[script].pop() if self.idle[script] else self._started(script=script)
        first = browser.current_window_handle
        browser.switch_to.new_window("window")
        yield browser
        for kept in ("Network.clearBrowserCookies", "Network.clearBrowserCache"):
            browser.execute_cdp_cmd(kept, {})
        browser.close()
        browser.switch_to.window(first)
        browser.get_log("browser")  # what the next would take for its own
        self.idle[script].append(browser)

    def _started(self, *, script: bool) -> Any:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        profile = self.folder / f"profile{len(self.started)}"
        others = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", f"user-data-dir={profile}")
        for name in (*QUIET, *others):
            options.add_argument(f"--{name}")
        if not script:
            options.add_experimental_option(
                "prefs", {"profile.managed_default_content_settings.javascript": 2}
            )
        self.started.append(webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))))
        return self.started[-1]

    def close(self) -> None:
        for browser in self.started:
            browser.quit()
