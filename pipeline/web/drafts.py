"""The page of suppression rules, with the draft in progress: tried, or refused beside what was typed.

Belongs here: what a draft is while it is not yet a rule. Does not: what a rule hides (review/suppression.py),
whether its words fit the dataset (review/rule_words.py), or saving it (forms.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from fastapi import Request
from starlette.responses import Response

from pipeline.errors import ConfigError, VaewatchError
from pipeline.review import effects, queue, rule_words, suppression
from pipeline.review.filters import Filters
from pipeline.web import scope
from pipeline.web.render import page

HOLDS = 30  # days that a draft holds by default


@dataclass(frozen=True)
class Draft:
    """A rule as it was typed, whether or not there can be such a rule.

    Attributes:
        pairs: column and value, as the form has them; a pair that is empty on both sides is left out.
        slip: why there can be no such rule; empty where there can.
        is_changed: it was to be saved, and hides something else than was shown when it was tried.
    """

    dataset: str
    signature: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    ends_on: str = ""
    note: str = ""
    slip: str = ""
    is_changed: bool = False


def typed(
    dataset: str, signature: str, columns: Sequence[str], values: Sequence[str], ends_on: str, note: str
) -> Draft:
    """Return what the form sent; without a last day, it is a month from today."""
    pairs = tuple(pair for pair in zip(columns, values, strict=False) if any(pair))
    last = ends_on or (datetime.now(UTC).date() + timedelta(days=HOLDS)).isoformat()
    return Draft(dataset, signature, pairs, last, note)


def rule_of(here: Any, draft: Draft, *, by: str) -> suppression.Rule:
    """Return the rule that a draft is, in its dataset's words.

    Raises:
        ConfigError: no record can be like that; with every fault.
    """
    said = suppression.conditions(draft.pairs)
    rule = suppression.Rule(draft.dataset, draft.signature, said, draft.ends_on, draft.note, by)
    return rule_words.fitted(here, rule)


def shown_as(rule: suppression.Rule) -> str:
    """Return a digest of what a rule hides: dataset, signature and conditions.

    A page that showed what a rule would have hidden knows it by this. Last day and note change nothing of
    that.
    """
    hides = [rule.dataset, rule.signature, sorted(rule.conditions.items())]
    return sha256(json.dumps(hides).encode()).hexdigest()


def answer(request: Request, draft: Draft | None = None) -> Response:
    """Return the page: the saved rules and, where there is one, the draft with what it would have hidden.

    The status is 422 where the draft has a slip: what was typed is kept, with what is wrong beside it. It is
    409 where the draft was to be saved and is shown first.
    """
    here, tried, shown, rules = request.app.state.here, None, "", scope.rules(request)
    if draft is not None:
        draft, tried, shown = _tried(here, draft, by=request.state.reviewer.name)
    return page(
        request,
        "rules.html",
        rules=effects.effects(here.ledger, rules),
        n_hidden=queue.total(here.ledger, scope.seen(request, Filters(suppressed=True))),
        today=datetime.now(UTC).date().isoformat(),
        draft=draft,
        tried=tried,
        shown=shown,
        columns=_columns(here, draft.dataset) if draft else [],
        query="",
        status=200 if draft is None else 422 if draft.slip else 409 if draft.is_changed else 200,
    )


def _tried(here: Any, draft: Draft, *, by: str) -> tuple[Draft, effects.Preview | None, str]:
    """Return a draft in its dataset's words, its preview, and the digest of `shown_as`.

    A draft with a slip is returned with that instead; a missing note is no slip yet.
    """
    try:
        rule = rule_of(here, draft, by=by)
        tried = effects.preview(here.ledger, rule)
        draft = replace(draft, pairs=tuple(rule.conditions.items()))
        if not draft.slip:
            suppression.check_last_day(rule)
    except ConfigError as fault:
        return replace(draft, slip=draft.slip or str(fault)), None, ""
    return draft, tried, shown_as(rule)


def _columns(here: Any, dataset: str) -> list[str]:
    """Return what a rule's conditions may be about; nothing where the dataset has no file."""
    with contextlib.suppress(VaewatchError):
        return list(here.dataset(dataset).columns)
    return []
