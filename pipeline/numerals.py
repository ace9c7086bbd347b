"""How numbers are written for people: commas between thousands, in whole numbers and in fractions alike.

Belongs here: one number, and one that is given as text. Does not: which texts are codes, of which 007 is
another than 7: their column says so.
"""

from __future__ import annotations

import re

WHOLE = re.compile(r"-?\d{1,20}")
FRACTION = re.compile(r"-?\d{1,20}(\.\d{1,20}(e[+-]?\d{1,3})?|e[+-]?\d{1,3})")
LARGE = 1e15  # from here on a double has no fraction to tell


def number(value: float, digits: int = 4) -> str:
    """A number, whole or to so many digits, all of those before the point among them; no exponent where it
    can be helped.
    """
    if isinstance(value, int) or (value.is_integer() and abs(value) < LARGE):
        return f"{int(value):,}"
    if not 1e-3 <= abs(value) < LARGE:
        return f"{value:.{digits}g}"
    written = f"{value:,.{max(digits, len(str(int(abs(value)))))}g}"
    return f"{float(written):,.0f}" if "e" in written else written  # 9,999.6 was rounded up to 1e+04


def from_text(text: str, digits: int = 6) -> str:
    """The same of a number that is given as text; what is none stays as it is."""
    if WHOLE.fullmatch(text):
        return f"{int(text):,}"
    return number(float(text), digits) if FRACTION.fullmatch(text) else text
