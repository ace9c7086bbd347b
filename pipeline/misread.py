"""Messages about a name or a value that was not understood.

Belongs here: what was probably meant, and a validator's sentence without pydantic's prefix. Does not: the
errors (errors.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

MOST_KNOWN = 5  # names


def meant(name: str, known: Collection[str], *, most: int = MOST_KNOWN) -> str:
    """Suggest the known name that was probably meant; if none is close, say briefly which there are.

    Args:
        most: names up to which each is named.
    """
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    if not known:
        return "there is none"
    *others, last = sorted(known)
    if len(others) < most:
        return f"there {'are' if others else 'is'} {', '.join([*others, last])}"
    return f"there are {len(known)}, {others[0]} to {last}"


def sentence_of(message: str) -> str:
    """Return a validator's message without the kind of error that pydantic puts before it."""
    return message.removeprefix("Value error, ")
