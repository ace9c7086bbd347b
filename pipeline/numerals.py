"""How numbers are written for people: commas between thousands, in whole numbers and in fractions alike.

Belongs here: one number, one that is given as text, and a value of a record. Does not: which texts are codes,
where 007 differs from 7; their column says so.
"""

from __future__ import annotations

import math
import re
from typing import Any

WHOLE = re.compile(r"-?\d{1,20}")
FRACTION = re.compile(r"-?\d{1,20}(\.\d{1,20}(e[+-]?\d{1,3})?|e[+-]?\d{1,3})")
PLAIN = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")  # 007 is a name
FLOAT32 = 3e38  # larger numbers are no float32
LONG = 14  # characters; nobody typed a longer double
EXACT = 2**53  # smaller whole numbers are all doubles
LARGE = 1e15  # from here on, a double's fraction is too coarse to show


def number(value: float, digits: int = 4) -> str:
    """Format a number: a whole one in full, any other to `digits` digits or all those before its point.

    Only fractions below 1e-3 or from 1e15 on may get an exponent.
    """
    if isinstance(value, int) or (value.is_integer() and abs(value) < LARGE):
        return f"{int(value):,}"
    if not 1e-3 <= abs(value) < LARGE:
        return f"{value:.{digits}g}"
    written = f"{value:,.{max(digits, len(str(int(abs(value)))))}g}"
    return f"{float(written):,.0f}" if "e" in written else written  # 9,999.6 is rounded up to 1e+04


def from_text(text: str, digits: int = 6) -> str:
    """Format a number that is given as text; return any other text unchanged."""
    if WHOLE.fullmatch(text):
        return f"{int(text):,}"
    return number(float(text), digits) if FRACTION.fullmatch(text) else text


def in_full(value: Any, is_quantity: bool = False) -> str:
    """Format a value of a record with all its digits; what is no number as text.

    Fractions get commas between thousands, and so does every number of a quantity, a decimal that is kept as
    text included. A whole number that is no quantity is a name, a double too: a column of customers' numbers
    is one of doubles where some are missing.
    """
    if isinstance(value, float) and math.isfinite(value):
        is_name = not is_quantity and value.is_integer() and abs(value) < EXACT
        return str(int(value)) if is_name else _exact(value)
    text = str(value)
    return _marked(text) if is_quantity and PLAIN.fullmatch(text) else text


def _exact(value: float) -> str:
    """Format a double with all the digits that were typed; one that came from a float32, with its digits."""
    text = f"{value:.15g}"
    if len(text) > LONG and not value.is_integer() and abs(value) < FLOAT32:
        import numpy as np

        if float(near := np.float32(value)) == value:
            text = str(near)
    return text if "e" in text else _marked(text)


def _marked(text: str) -> str:
    digits, point, fraction = text.partition(".")
    return f"{'-' * digits.startswith('-')}{int(digits.removeprefix('-')):,}{point}{fraction}"
