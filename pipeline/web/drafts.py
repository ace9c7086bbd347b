"""The page of suppression rules, with the draft that somebody is at: tried, or refused beside what was typed.

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

HOLDS = 30  # days that a draft holds where nothing else is said


@dataclass(frozen=True)
class Draft:
    """A rule as it was typed, whether or not there can be such a rule.

    Attributes:
        pairs: column and value, as the form has them; one that is empty on both sides is none.
        slip: why there can be no such rule; empty where there can.
        is_changed: it was to be saved, and hides something else than what was shown when it was tried.
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
    """What the form sent; its last day is a month from today where none was given."""
    pairs = tuple(pair for pair in zip(columns, values, strict=False) if any(pair))
    last = ends_on or (datetime.now(UTC).date() + timedelta(days=HOLDS)).isoformat()
    return Draft(dataset, signature, pairs, last, note)


def rule_of(here: Any, draft: Draft, *, by: str) -> suppression.Rule:
    """The rule that a draft is, in its dataset's words.

    Raises:
        ConfigError: no record can be like that; with every fault.
    """
    said = suppression.conditions(draft.pairs)
    rule = suppression.Rule(draft.dataset, draft.signature, said, draft.ends_on, draft.note, by)
    return rule_words.fitted(here, rule)


def shown_as(rule: suppression.Rule) -> str:
    """What a page that showed what a rule would have hidden knows it by: dataset, signature and conditions.
    Last day and note are no part of that: they change nothing of what was shown.
    """
    hides = [rule.dataset, rule.signature, sorted(rule.conditions.items())]
    return sha256(json.dumps(hides).encode()).hexdigest()


def answer(request: Request, draft: Draft | None = None) -> Response:
    """The page: the rules that are kept and, where there is one, the draft with what it would have hidden.

    Its status is 422 where the draft has a slip: what was typed is kept, and what is wrong stands beside it;
    and 409 where it was to be saved and is shown first.
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


def _tried(here: Any, draft: Draft, *, by: str) -> tuple[Draft, suppression.Preview | None, str]:
    """A draft in its dataset's words with what it would have hidden and what that is known by, or with its
    slip; a missing note is none yet.
    """
    try:
        rule = rule_of(here, draft, by=by)
        tried = suppression.preview(here.ledger, rule)
        draft = replace(draft, pairs=tuple(rule.conditions.items()))
        if not draft.slip:
            suppression.check_last_day(rule)
    except ConfigError as fault:
        return replace(draft, slip=draft.slip or str(fault)), None, ""
    return draft, tried, shown_as(rule)


def _columns(here: Any, dataset: str) -> list[str]:
    """What a rule's conditions may be about; nothing where the dataset has no file."""
    with contextlib.suppress(VaewatchError):
        return list(here.dataset(dataset).columns)
    return []
