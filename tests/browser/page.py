"""The review page in a browser, by what a person sees and presses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PATIENCE = 60  # seconds, of a machine that is busy with other tests
ANSWERS = 10  # seconds, of a page that stays


class Page:
    """A browser at an address of the page."""

    def __init__(self, browser: Any, address: str, *, scripted: bool = True) -> None:
        self.scripted = scripted
        self.browser, self.site = browser, address.partition("/?")[0]
        self._get(address)

    def go(self, path: str) -> None:
        self._get(self.site + path)

    def _get(self, address: str) -> None:
        """Until it is drawn: what is pressed before is dropped by Chromium."""
        self.browser.get(address)
        if self.scripted:
            self.until(self._is_drawn)

    def _is_drawn(self) -> bool:
        """A page that sends its reader on, to a login say, takes the answer with it: the next is asked."""
        self.browser.set_script_timeout(ANSWERS)
        drawn = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));"
        self.browser.execute_async_script(drawn)
        return True

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def text(self, selector: str) -> str:
        return " ".join(self.all(selector)[0].text.split())

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def until(self, holds: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        # a page that is just being left is said in several ways, not all of them a stale element
        ignored = [WebDriverException, IndexError]
        patient = WebDriverWait(self.browser, PATIENCE, 0.05, ignored_exceptions=ignored)
        return patient.until(lambda _: holds())

    def hears_again(self) -> None:
        """Wait: after a failure, and when it is asked once more, a page hears nothing for a second."""
        clock = "return performance.now()"
        deaf_until = self.browser.execute_script(clock) + 1000
        self.until(lambda: self.browser.execute_script(clock) > deaf_until)

    def network(self, *, latency: int = 0, offline: bool = False) -> None:
        """Milliseconds that every answer takes, or no answer at all."""
        bounds = {"downloadThroughput": -1, "uploadThroughput": -1}
        self.browser.execute_cdp_cmd("Network.enable", {})
        self.browser.execute_cdp_cmd(
            "Network.emulateNetworkConditions", {"offline": offline, "latency": latency, **bounds}
        )

    def focused(self) -> str:
        return " ".join(self.browser.switch_to.active_element.text.split())

    def faults(self) -> list[str]:
        return [line["message"] for line in self.browser.get_log("browser") if line["level"] == "SEVERE"]
