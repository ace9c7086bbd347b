"""The page of a batch's check against its contract, opened as a file in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.contracts import BatchRule, RowRule
from tests.browser.page import Page
from tests.browser.test_review_layout import CONTRASTS
from tests.pipeline.expectations_data import check, relation

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]
BROKEN_WORDS = """
const broken = [], walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, range = document.createRange();
  for (const word of node.data.matchAll(/\\S+/g)) {
    range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
    const lines = new Set([...range.getClientRects()].map(one => Math.round(one.top)));
    if (lines.size > 1) broken.push(word[0]);
  }
}
return broken;
"""
HIDDEN = "return [...document.querySelectorAll('.table')].map(one => one.scrollWidth - one.clientWidth);"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 700, 1280])
def test_no_word_breaks_and_no_column_is_out_of_sight(
    tmp_path: Path, open_browser: Callable[..., Any], width: int, *, dark: bool
) -> None:
    """A batch is refused at night: its page is opened on a phone."""
    database = relation(
        tmp_path,
        """SELECT 20260127000000 + i % 4 AS transaction_id, 'card' AS channel, i AS vaewatch_row, i % 10 = 0 AS vaewatch_set_aside
           FROM range(5000) AS r(i)""",
    )
    rules: list[Any] = [
        RowRule("missing_value", "transaction_id", "transaction_id % 4 = 1"),
        RowRule("not_in_set", "channel", "true", values=("chip", "contactless", "wallet")),
        RowRule("missing_value", "channel", "false"),
        BatchRule("share_set_aside", maximum=0.05),
        BatchRule("row_count", minimum=1, maximum=1000000),
    ]
    check(database, rules, dataset="payments", mostly=0.95)
    page = Page(open_browser(width, 844, dark=dark), (tmp_path / "report" / "index.html").as_uri())
    assert page.browser.execute_script(BROKEN_WORDS) == []
    assert set(page.browser.execute_script(HIDDEN)) == {0}
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.browser.execute_script(CONTRASTS) == []
    assert ("Broken by" in page.text("main")) == page.browser.execute_script(
        "return getComputedStyle(document.querySelector('thead')).display != 'none'"
    )
