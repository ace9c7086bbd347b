"""Numbers for people: one mark between thousands, whatever the kind of number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.numerals import from_text, in_full, number
from pipeline.results.views import reasons_text
from pipeline.review.queued import Reason


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (38484, "38,484"),
        (4493.52, "4,494"),
        (-1234567, "-1,234,567"),
        (5000.0, "5,000"),
        (9999.6, "10,000"),
        (-99999.7, "-100,000"),
        (0.25, "0.25"),
        (0.0001234, "0.0001234"),
        (2.5e17, "2.5e+17"),
        (math.inf, "inf"),
        (0, "0"),
    ],
)
def test_thousands_are_marked_in_whole_numbers_and_fractions(value: float, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(
    ("value", "of_quantity", "of_code"),
    [
        (98521, "98,521", "98521"),
        (-1234, "-1,234", "-1234"),
        ("1234.50", "1,234.50", "1234.50"),  # a decimal, as the queue keeps it
        (2090.77, "2,090.77", "2,090.77"),
        (5200.0, "5,200", "5200"),
        (13081.0, "13,081", "13081"),  # a customer's number, where others of its column are missing
        (1234567890123456.0, "1.23456789012346e+15", "1234567890123456"),
        (-0.001, "-0.001", "-0.001"),
        (1234.0999755859375, "1,234.1", "1,234.1"),  # of a float32
        (2.5e17, "2.5e+17", "2.5e+17"),
        ("inf", "inf", "inf"),
        (True, "True", "True"),
        ("20260124", "20,260,124", "20260124"),
        ("007", "007", "007"),
        ("1970-01-01", "1970-01-01", "1970-01-01"),
    ],
)
def test_a_value_of_a_record_keeps_its_digits(value: object, of_quantity: str, of_code: str) -> None:
    """On a page and in a shell alike; a whole number that is no quantity is a name."""
    assert (in_full(value, True), in_full(value)) == (of_quantity, of_code)


@given(st.integers(-(10**19), 10**19))
def test_a_whole_number_keeps_every_digit(value: int) -> None:
    """Also where it comes as text and a double would not hold it."""
    assert int(number(value).replace(",", "")) == int(from_text(str(value)).replace(",", "")) == value


@given(st.floats(-1e14, 1e14))
def test_a_number_is_off_by_less_than_its_last_digit(value: float) -> None:
    """Four digits, or all those before the point: half of the last one."""
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5e-4)
    assert float(from_text(f"{value:.6g}").replace(",", "")) == pytest.approx(value, rel=5e-6)


@given(st.floats(1e-3, 1e14), st.sampled_from([3, 4, 5, 6]))
def test_a_number_that_people_can_read_has_no_exponent(value: float, digits: int) -> None:
    assert "e" not in number(value, digits) + number(-value, digits)


def test_reasons_mark_the_thousands_of_quantities_and_leave_codes() -> None:
    """A merchant's code 5411 is a name."""
    quantity = Reason("authorisation_ms", "38484", "1760.5", 100.0, 2000.0, 0.6)
    code = Reason("code", "5411", "5912 (93%)", None, None, 0.4)
    assert reasons_text([quantity, code]) == (
        "authorisation_ms 38,484 (expected 1,760.5, 60%); code 5411 (expected 5912, 93% likely, 40%)"
    )
    missing = Reason("amount", "missing", "12.5", 10.0, 15.0, 1.0)
    assert reasons_text([missing]) == "amount missing (expected 12.5, 100%)"


@pytest.mark.parametrize(
    ("expected", "likely", "said"),
    [
        ("DE (93%)", "DE", "DE, 93% likely"),
        ("(other) (4%)", "a rare value", "a rare value, 4% likely"),
        ("a (b) (50%)", "a (b)", "a (b), 50% likely"),
        ("(93%)", "(93%)", "(93%)"),
    ],
)
def test_what_was_expected_of_a_category_is_said_with_how_likely_it_was(
    expected: str, likely: str, said: str
) -> None:
    """Beside the share that it explains a bare percentage is the second of two."""
    reason = Reason("country", "FR", expected, None, None, 0.4)
    assert (reason.likely[0], reason.expected_text) == (likely, said)
