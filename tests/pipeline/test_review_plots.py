"""Plots of the review page: the observed value, the expected one, and the column's usual values."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pipeline.review.queued import Reason
from pipeline.review.statistics import Day
from pipeline.review.usual import Distribution
from pipeline.web import plots

COUNTRIES = Distribution(1000, "b", categories=(("DE", 0.6), ("FR", 0.3), ("XX", 0.001), ("<b>", 0.0)))


def reason(observed: str, expected: str, *, low: float | None = None, unknown: bool = False) -> Reason:
    return Reason("country", observed, expected, low, low, 0.9, unknown)


def test_a_categorys_reason_shows_observed_expected_and_usual_shares() -> None:
    """What a number's histogram and interval show."""
    drawn = str(plots.usual(COUNTRIES, reason("XX", "FR (93%)", unknown=True)))
    assert '<text class="observed"' in drawn
    assert "0.1%, not seen in training" in drawn
    assert "93% expected here" in drawn
    widths = {
        kind: float(w)
        for kind, w in re.findall(r'class="bar (\w*)"[^>]* width="([\d.]+)" height', drawn)
        if kind
    }
    assert widths["expected"] > 100 * widths["observed"] > 0
    assert "not seen" not in str(plots.usual(COUNTRIES, reason("XX", "FR (93%)")))


def test_a_category_of_any_name_is_text() -> None:
    """A parenthesis in it, markup, and more than a line."""
    odd = Distribution(10, "b", categories=(("a (b)", 0.5), ("<script>" + "x" * 500, 0.5)))
    drawn = str(plots.usual(odd, reason("<script>" + "x" * 500, "a (b) (50%)")))
    assert "50% expected here" in drawn
    assert "<script>" not in drawn


def test_the_ends_of_a_plot_are_written_as_the_values_beside_it() -> None:
    """1.235e+04 under a plot, 12,346 beside it."""
    wide = Distribution(1000, "b", edges=(0.0, 6_000.0, 12_345.6), counts=(5.0, 3.0))
    drawn = str(plots.usual(wide, Reason("amount", "9000", "1706", 203.0, 1208.4, 0.9, False)))
    assert re.findall(r"<text[^>]*>([^<]*)</text>", drawn) == ["0", "12,346"]
    assert "observed 9,000, expected 1,706; the usual values of 1,000 b" in drawn


def test_what_was_expected_beyond_the_plot_is_an_arrow_and_no_line_at_its_edge() -> None:
    """The plot ends at 15: 178,920 is not 15."""
    miles = Distribution(1000, "b", edges=(0.0, 5.0, 10.0, 15.0), counts=(5.0, 3.0, 1.0))
    far = Reason("trip_distance", "0", "178920", 178_900.0, 178_940.0, 0.9, False)
    near = replace(far, expected="7.5", low=6.0, high=9.0)
    beyond, within = (str(plots.usual(miles, one)) for one in (far, near))
    assert '<path class="expected"' in beyond
    assert 'class="interval"' not in beyond
    assert re.search(r'<line class="expected" x1="210.0"', within)
    assert 'class="interval"' in within


@pytest.mark.parametrize(
    ("expected", "low", "found"),
    [("DE (93%)", None, ("DE", 0.93)), ("12.5", 10.0, ("", None)), ("DE", None, ("", None))],
)
def test_what_was_likely_is_read_from_the_reason(
    expected: str, low: float | None, found: tuple[str, float | None]
) -> None:
    """Nothing is made of a reason that says it otherwise."""
    assert plots.likely(reason("x", expected, low=low)) == found


@pytest.mark.parametrize("n_days", [1, 2, 5, 60])
def test_a_day_is_a_bar_however_few_there_are(n_days: int) -> None:
    """The first day that is flagged is no grey wall, and the last bar is inside each of the two drawings."""
    drawn = str(plots.per_day([Day(f"2026-01-{i:02}", 78, 0, 0) for i in range(n_days)], {}))
    both = re.findall(r"viewBox=\"0 0 (\d+) ", drawn)
    for one, wide in zip(drawn.split("</svg>"), map(int, both), strict=False):
        found = re.findall(r'"waiting" x="([\d.]+)".*? width="([\d.]+)"', one)
        bars = [tuple(map(float, bar)) for bar in found]
        assert len(bars) == n_days
        assert max(width for _, width in bars) <= plots.WIDEST_DAY
        assert bars[-1][0] + bars[-1][1] <= wide
    assert len(both) == 2


@pytest.mark.parametrize("n", [7, 999, 99_999])
def test_the_numbers_of_an_axis_have_room_beside_it(n: int) -> None:
    """However long they are: a letter of the style sheet's 11 px is 6.6 px wide."""
    drawn = str(plots.per_day([Day("2026-01-01", n, 0, 0)], {}))
    ends = re.findall(r'<text x="(\d+)" y="[\d.]+" text-anchor="end">([\d,]+)<', drawn)
    assert len(ends) == 6
    assert all(int(x) >= 6.6 * len(text) for x, text in ends)


def test_a_day_of_refused_batches_has_a_cross_and_says_so() -> None:
    """Nothing was scored is not nothing flagged."""
    days = [Day("2026-01-01", 0, 0, 0), Day("2026-01-02", 5, 0, 0)]
    drawn, without = (str(plots.per_day(days, refused)) for refused in ({"2026-01-01": 2}, {}))
    assert "2 batches refused" in drawn
    assert "refused" not in without
