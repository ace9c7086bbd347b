"""Debian's Chromium, without background requests of its own."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")


def missing() -> str:
    """Say why no browser can be started; empty where one can."""
    if shutil.which("chromium") and shutil.which("chromedriver") and importlib.util.find_spec("selenium"):
        return ""
    return "no Chromium, chromedriver or selenium: `apt-get install chromium chromium-driver`"


@contextmanager
def browsers(folder: Path) -> Iterator[Callable[..., Any]]:
    """Yield a function that starts a browser, of a width, light or dark; all are closed at the end."""
    started: list[Any] = []

    def start(width: int = 1280, height: int = 900, *, dark: bool = False, script: bool = True) -> Any:
        started.append(_started(folder / f"profile{len(started)}", script=script))
        browser = started[-1]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.implicitly_wait(0)
        return browser

    try:
        yield start
    finally:
        for browser in started:
            browser.quit()


def _started(profile: Path, *, script: bool) -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    others = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", f"user-data-dir={profile}")
    for name in (*QUIET, *others):
        options.add_argument(f"--{name}")
    if not script:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
