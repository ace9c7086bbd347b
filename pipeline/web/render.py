"""How a page is written: a template, what every page knows, and addresses that hold the state of a list.

Belongs here: Jinja's environment. Does not: what a page shows (pages.py), or what things are called
(words.py).
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from pipeline.records.verdicts import OPINIONS
from pipeline.review import statistics
from pipeline.review.filters import Filters
from pipeline.web import words
from pipeline.web.access import POLICY
from pipeline.web.words import CHIP_NAMES, FACET_NAMES, VERDICT_NAMES, WORDS

LONGEST_IN_RECORD = 2000  # characters


def page(request: Request, template: str, *, query: str, **given: Any) -> Response:
    """Render a template; what is given overrides what every page has, such as `may_write`."""
    state = request.state
    reviewer = getattr(state, "reviewer", None)
    common = {
        "base": request.scope.get("root_path", ""),
        "path": request.url.path.removeprefix(request.scope.get("root_path", "")),
        "stamp": request.app.state.stamp,
        "reviewer": reviewer,
        "csrf": getattr(state, "csrf", ""),
        "told": _told(request),
        "act": request.query_params.get("act", "")[:64],
        "query": query,
        "address": request.url.query,
        "may_write": reviewer is not None and reviewer.may_write,
        "may_judge": reviewer.may_judge if reviewer is not None else None,
    }
    status = given.get("status", 200)
    return HTMLResponse(_templates.get_template(template).render(common | given), status)


def _told(request: Request) -> str:
    """Return what one of our pages says was done; a link from elsewhere has no say in that."""
    is_ours = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    return request.query_params.get("told", "")[:300] if is_ours else ""


def cut(value: Any, most: int) -> str:
    """Return a text of which a line shows so many characters; the rest can be read, found and copied, too.

    The stylesheet has a class for each length that templates use.
    """
    text = words.short(value, LONGEST_IN_RECORD)
    return (
        text
        if len(text) <= most
        else Markup('<span class="cut c{}" title="{}">{}</span>').format(most, text, text)
    )


def with_code(text: str) -> Markup:
    """Return a sentence of ours, with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one backtick is left open
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def _templated() -> Environment:
    made = Environment(
        loader=PackageLoader("pipeline.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": words.number,
        "nats": words.nats,
        "short": words.short,
        "cut": cut,
        "percent": words.percent,
        "rarity": words.rarity,
        "counted": words.counted,
        "told": with_code,
        "likely": lambda reason: reason.likely[0],
        "rounded": words.rounded,
        "cell": words.cell,
        "when": words.when,
        "signature": lambda given, most=words.LONGEST_IN_LIST: cut(words.signature(given), most),
        "address": lambda given: urlencode({
            name: value for name, value in given.items() if value is not None
        }),
    }
    made.globals |= {
        "MANY": words.MANY,
        "OPINIONS": OPINIONS,
        "VERDICTS": VERDICT_NAMES,
        "FACETS": FACET_NAMES,
        "CHIPS": CHIP_NAMES,
        "WORDS": WORDS,
        "IN_RECORD": LONGEST_IN_RECORD,
        "changed": lambda filters, **changes: query_of(Filters(**{**vars(filters), **changes})),
        "paged": lambda filters, place: query_of(filters, after=str(place)),
        "wait_text": statistics.wait_text,
        "share_text": statistics.share_text,
        "recall_text": statistics.recall_text,
        "missed_text": statistics.missed_text,
    }
    return made


def fault(request: Request, status: int, message: str, *, style: str = "", icon: str = "") -> Response:
    """Return a fault as a page, with what to do next.

    Args:
        style, icon: embedded in the page for somebody who may not even load the style sheet; the policy
            allows both. Where a page names no icon, browsers ask the host for one.
    """
    given: dict[str, Any] = {"status": status, "message": message}
    if not style:
        return page(request, "fault.html", query="", **given)
    inside = {"style": Markup(style), "icon": icon}  # noqa: S704  # our own files
    answer = page(request, "fault.html", query="", **given, **inside)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = POLICY.replace("style-src 'self'", f"style-src 'sha256-{digest}'")
    policy = policy.replace("img-src 'self'", "img-src data:")
    answer.headers["Content-Security-Policy"] = policy
    return answer


def query_of(filters: Filters, **more: Any) -> str:
    """Return filters as an address holds them, without the default state, open."""
    unasked = None if filters.search or filters.suppressed else "open"
    chosen = {**filters.chosen(), "state": None if filters.state == unasked else filters.state or "any"}
    return urlencode({name: value for name, value in {**chosen, **more}.items() if value is not None})


_templates = _templated()
