"""The page of a batch and that of its model's training, opened as files in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.report import batch
from tests.browser.conftest import chromiums as chromiums  # fixtures
from tests.browser.conftest import open_browser as open_browser
from tests.browser.page import Page
from tests.browser.test_review_layout import CONTRASTS

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
]
# of every plot, whether it covers anything: an empty path has no extent, a broken picture no width of its own
PLOTS = """
document.querySelectorAll("details").forEach(one => one.open = true);
const drawn = [...document.querySelectorAll("svg.plot")].map(plot => plot.getBoundingClientRect().width > 50
  && [...plot.querySelectorAll("rect, path, circle")].some(mark => { const of = mark.getBBox(); return of.width + of.height > 1; }));
return [...drawn, ...[...document.images].map(picture => picture.complete && picture.naturalWidth > 100)];
"""
ASKED = "return performance.getEntriesByType('resource').map(one => one.name);"
CUT = """
const table = document.querySelector(".flagged"), place = table.parentElement;
return [place.scrollWidth - place.clientWidth, ...[...table.querySelectorAll("td")].map(one => one.scrollWidth - one.clientWidth)];
"""  # px of what was flagged that a reader has to scroll for
BEHIND = "return getComputedStyle(document.body).backgroundColor;"


def looked_at(page: Page) -> tuple[int, str]:
    """How many plots a page has, all of them drawn, and its background; that it can be read, asks for nothing
    and says nothing on the console.
    """
    plots = page.browser.execute_script(PLOTS)
    assert all(plots)
    assert page.browser.execute_script(CONTRASTS) == []
    assert page.browser.execute_script(ASKED) == []
    assert page.faults() == []
    return len(plots), str(page.browser.execute_script(BEHIND))


def test_a_batchs_page_and_the_training_that_it_leads_to_can_be_read_in_the_light_and_in_the_dark(
    scored: Place, open_browser: Callable[..., Any]
) -> None:
    """Attached to a mail, on a machine without a network."""
    here = scored.here
    told = batch.rewrite(here, here.dataset("payments"), "2026-01-14")
    seen = []
    for dark in (False, True):
        page = Page(open_browser(dark=dark), told.path.as_uri())
        page.network(offline=True)
        assert page.text("h1") == told.trust.headline
        nights = looked_at(page)
        (link,) = (one for one in page.all("a") if one.text == "the training's page")
        link.click()
        page.until(lambda page=page: "/trainings/payments/" in page.browser.current_url and page.all("h1"))
        assert page.text("h1").startswith("Promoted 20")
        seen.append((nights, looked_at(page)))
    (light, light_training), (dark_one, dark_training) = seen
    assert light[0] == dark_one[0] >= 5  # numbers over the nights
    assert light_training[0] == dark_training[0] >= 1 + 4 + 6  # the loss, pictures, columns
    assert light[1] == light_training[1] != dark_one[1] == dark_training[1]


@pytest.mark.parametrize("dark", [False, True])
def test_why_a_record_was_flagged_can_be_read_on_a_phone(
    scored: Place, open_browser: Callable[..., Any], *, dark: bool
) -> None:
    """A digest is opened where it is read. A table that scrolls sideways hides its last column, the
    reasons.
    """
    here = scored.here
    told = batch.rewrite(here, here.dataset("payments"), "2026-01-14")
    page = Page(open_browser(390, 844, dark=dark), told.path.as_uri())
    cut = page.browser.execute_script(CUT)
    assert len(cut) > 1
    assert max(cut) == 0
    assert page.browser.execute_script(CONTRASTS) == []
