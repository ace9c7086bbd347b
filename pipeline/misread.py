"""Messages about a name or a value that was not understood.

Belongs here: what was probably meant, and a validator's sentence without pydantic's prefix. Does not: the
errors (errors.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

MOST_KNOWN = 5  # names
PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*")
MUST = {  # by how pydantic's kinds of error begin
    "float_": "a number", "int_": "a whole number", "bool_": "true or false", "string_type": "text, in quotes", "list_": "a list",
    "dict_": "settings, a line each", "model_": "settings, a line each",
}  # fmt: skip


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


def wrong(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a setting, from pydantic's error, in words for who writes YAML."""
    given, kind = error["input"], error["type"]
    message = sentence_of(error["msg"])
    if kind == "missing":
        return "is missing: it has to be given"
    if kind in {"value_error", "extra_forbidden"} or not message.startswith("Input should be "):
        return message
    must = next((words for start, words in MUST.items() if kind.startswith(start)), "")
    must = must or re.sub(", (unable to|got) .*", "", message.removeprefix("Input should be "))
    hint = ""
    if isinstance(given, str) and "number" in must and (found := PERCENT.fullmatch(given)):
        hint = f" (a share: {float(found[1]) / 100:g})"
    return f"must be {must}, is {given!r}{hint}"


def sentence_of(message: str) -> str:
    """Return a validator's message without the kind of error that pydantic puts before it."""
    return message.removeprefix("Value error, ")
