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
    """Format a share for a person, to about two significant digits."""
    if share is None:
        return "–"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}" if share >= 0.001 else "<0.1%"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return numerals.number(value, 3)


def when(moment: str) -> str:
    """Format a moment in ISO 8601, UTC, for a person."""
    return f"{moment[:16].replace('T', ' ')} UTC"


def linked(html: str, review: str) -> str:
    """Fill in a page's links to the review page: a file on disk does not know who serves it.

    No text from data holds a bare "<", so only links match.

    Args:
        review: where the review page is.
    """
    return html.replace('<a data-to="', f'<a href="{escape(review.rstrip("/"))}/')


def render(template: str, **facts: Any) -> str:
    from pipeline.expectations.page import STYLE

    return _environment().get_template(template).render(style=STYLE, **facts)


def write(path: Path, html: str) -> Path:
    """Write a page in place of the earlier one.

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
