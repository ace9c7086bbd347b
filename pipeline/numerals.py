"""How numbers are written for people: commas between thousands, in whole numbers and in fractions alike.

Belongs here: one number, and one that is given as text. Does not: which texts are codes, where 007 differs
from 7; their column says so.
"""

from __future__ import annotations

import re

WHOLE = re.compile(r"-?\d{1,20}")
FRACTION = re.compile(r"-?\d{1,20}(\.\d{1,20}(e[+-]?\d{1,3})?|e[+-]?\d{1,3})")
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
