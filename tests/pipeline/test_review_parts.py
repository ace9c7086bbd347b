"""The parts of a score that are shown add up."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Context, Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.review import parts
from pipeline.review.queued import Reason, Term
from pipeline.web.render import with_code
from pipeline.web.words import cell, counted, nats, number, rarity, rounded

from .review_data import WHOLE

NATS = st.floats(-1e6, 1e6, width=32)


@example(terms=[65536.875], others=0.0, kl=0.0, weight=1.0)
@given(
    terms=st.lists(NATS, max_size=8), others=NATS, kl=st.floats(0, 1e6, width=32), weight=st.floats(0.01, 100)
)
def test_the_parts_of_a_score_add_up_as_they_are_shown(
    terms: list[float], others: float, kl: float, weight: float
) -> None:
    """A reader with a pencil comes to the number at the foot, to the digit."""
    row = replace(
        WHOLE,
        terms=tuple(Term(f"c{i}", term) for i, term in enumerate(terms)),
        kl_weight=weight,
        kl_divergence=kl,
        anomaly_score=sum(terms) + others + weight * kl,
    )

    def cents(value: float) -> int:
        return int(nats(value).replace("\N{MINUS SIGN}", "-").replace(",", "").replace(".", ""))

    found = parts.of_score(row)
    assert sum(cents(part.nats) for part in found) == cents(row.anomaly_score)
    assert [part.kind for part in found][-1] == "kl"


@given(shares=st.lists(st.floats(0, 0.3), max_size=3), kl=st.floats(0, 0.1))
def test_shares_add_up_to_a_hundred(shares: list[float], kl: float) -> None:
    """With those of the columns that are not named."""
    reasons = tuple(Reason("amount", "1", "2", None, None, share) for share in shares)
    row = replace(WHOLE, reasons=reasons, kl_share=kl)
    shown = [round(100 * share) for share in (*shares, kl, parts.unnamed_share(row))]
    assert sum(shown) == (100 if shares else round(100 * kl))


@given(st.floats(0, 16))
def test_severity_and_one_in_so_many_are_one_number(severity: float) -> None:
    """To two digits; beyond what can be known, a bound that is true."""
    said = rarity(severity)
    told = float("".join(re.findall(r"[0-9.]", said.partition("1 in")[2])) or 0)
    if said.startswith("fewer"):
        assert told == 10**6 < 10**severity
    elif told:
        assert math.log10(told) == pytest.approx(severity, abs=0.03)
    else:
        assert float(said.partition("%")[0]) / 100 == pytest.approx(10**-severity, abs=0.005)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("007", "007"),
        ("5411", "5411"),
        ("12.34567", "12.35"),
        ("1e+06", "1,000,000"),
        ("13081.0", "13081.0"),
        (13081.0, "13081"),
        (710.338523123427, "710.3"),
        ("3020.59", "3,021"),
        ("-0.25", "-0.25"),
        ("v1.2", "v1.2"),
        ("nan", "nan"),
    ],
)
def test_codes_are_not_rewritten_and_fractions_are_rounded(text: str | float, shown: str) -> None:
    assert rounded(text) == shown


def test_values_beside_each_other_are_rounded_and_their_times_cut() -> None:
    """Fifteen digits of a number that came from a model are no more than four; a whole name stays."""
    values = (710.338523123427, 13081.0, "2026-01-30T04:05:06.789+00:00")
    assert [rounded(value, seconds=True) for value in values] == ["710.3", "13081", "2026-01-30 04:05:06 UTC"]


def test_whole_numbers_of_quantities_are_marked_like_fractions() -> None:
    """Beside 4,494 a 38484 is read wrong; what comes as text from a reason likewise."""
    assert [rounded(value, True) for value in ("38484", 38484, "4493.52", "missing")] == [
        "38,484", "38,484", "4,494", "missing",
    ]  # fmt: skip
    assert (cell(38484, True), cell(True, True), cell("007", True)) == ("38,484", "true", "007")


def test_thousands_have_one_mark_on_a_page_and_a_records_fractions_no_noise() -> None:
    """3 020.59 nats beside 3020.59 and 5,000 records look like three kinds of number. A code has none."""
    assert (number(5000), number(5000.0), number(3020.59, 7), nats(-3020.5)) == (
        "5,000", "5,000", "3,020.59", f"{-3020.5:,.{parts.DIGITS}f}".replace("-", "\N{MINUS SIGN}"),
    )  # fmt: skip
    assert [cell(value) for value in (3020.59, 0.1 + 0.2, float("nan"), 5411, "12.50", "007", True)] == [
        "3,020.59", "0.3", "nan", "5411", "12.50", "007", "true",
    ]  # fmt: skip


@given(st.decimals(-(10**14), 10**14, places=4), st.floats(-(2**99), 2**99, width=32))
def test_a_records_fractions_are_whole(typed: Decimal, narrow: float) -> None:
    """An amount of 123456.78 is not 123,456.8; a float32 is told as one and read back as the same."""
    typed = Context(prec=15).create_decimal(typed)
    assert float(cell(float(typed)).replace(",", "")) == float(typed)
    assert np.float32(cell(narrow).replace(",", "")) == np.float32(narrow)


def test_a_p_value_is_told_as_severity_is() -> None:
    """So that the two can be held against one another: 1 of 4,949 and one is 1 in 4,950."""
    assert counted(1 / 4950) == rarity(math.log10(4950)) == "1 in 5,000"
    assert (counted(1.0), counted(0.25)) == ("100% of", "25% of")


def test_what_is_to_be_typed_is_code_and_whatever_it_holds_is_text() -> None:
    """The page of a fault says what to do; what it quotes may be a script."""
    said = with_code("no version <b>: `vaewatch versions <b>`, or `x`.")
    assert said == "no version &lt;b&gt;: <code>vaewatch versions &lt;b&gt;</code>, or <code>x</code>."
    assert with_code("one ` left <open>") == "one ` left &lt;open&gt;"
