"""From a template to a page on disk, whole or not at all.

Belongs here: the environment that escapes whatever comes from data, and the atomic write. Does not: any fact.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline import numerals
from pipeline.errors import StorageFailed


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number}
    return environment


def percent(share: float | None) -> str:
    """A share as a person reads it: two digits that say something."""
    if share is None:
        return "–"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}" if share >= 0.001 else "<0.1%"


def number(value: float | None) -> str:
    """A number as a person reads it."""
    if value is None:
        return "–"
    return numerals.number(value, 3)


def when(moment: str) -> str:
    """A moment in ISO 8601, UTC, as a person reads it."""
    return f"{moment[:16].replace('T', ' ')} UTC"


def linked(html: str, review: str) -> str:
    """A page with its links to the review page, which are none where that is not known: a file on disk does
    not know who serves it. No text from data holds a bare "<".

    Args:
        review: where the review page is.
    """
    return html.replace('<a data-to="', f'<a href="{escape(review.rstrip("/"))}/')


def render(template: str, **facts: Any) -> str:
    """The page as HTML."""
    from pipeline.expectations.page import STYLE

    return _environment().get_template(template).render(style=STYLE, **facts)


def write(path: Path, html: str) -> Path:
    """Put a page in the place of the one that there was.

    Raises:
        StorageFailed: it could not be written; the earlier one is still there.
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(html, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    except OSError as fault:
        raise StorageFailed(f"the report {path} could not be written: {fault}") from fault
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return path
