"""What is said of a name or a value that was not understood.

Belongs here: what was probably meant, and a validator's sentence without its library's words. Does not: the
errors (errors.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

MOST_KNOWN = 5  # names


def meant(name: str, known: Collection[str]) -> str:
    """What a name that is not known was probably meant to be; else what there is, in short."""
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    if not known:
        return "there is none"
    *others, last = sorted(known)
    if len(others) < MOST_KNOWN:
        return f"there {'are' if others else 'is'} {', '.join([*others, last])}"
    return f"there are {len(known)}, {others[0]} to {last}"


def sentence_of(message: str) -> str:
    """What a validator said, without the kind of error that pydantic puts before it."""
    return message.removeprefix("Value error, ")
