"""A short message after each batch: how many, the three most severe with their reasons, where to look.

Belongs here: the words, and handing them on: to the log, a file, a webhook. Does not: when (steps/). Nothing to say
is not said. A message that cannot be delivered is told in the log; the batch is scored all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from pipeline.config import Dataset
from pipeline.installation import Installation
from pipeline.review import intake, queue
from pipeline.review.queue import Filters

SHOWN = 3
PATIENCE = 10.0  # seconds


def digest(here: Installation, dataset: Dataset, batch_id: str) -> str | None:
    """What is to be said of a batch; None where nothing in it waits for a person."""
    name = dataset.dataset
    mine = Filters(dataset=name, batch=batch_id, kind="flagged", state="open")
    n = queue.total(here.ledger, mine)
    if not n:
        return None
    held = intake.held(here.ledger, name)[batch_id]
    n_hidden = queue.total(here.ledger, replace(mine, suppressed=True))
    hidden = f", {n_hidden} more hidden by rules" if n_hidden else ""
    lines = [
        f"{name} {batch_id}: {n} of {held.n_flagged + held.n_unflagged} records wait for review "
        f"(model version {held.model_version}{hidden})"
    ]
    for row in queue.page(here.ledger, mine, limit=SHOWN).rows:
        why = "; ".join(
            f"{reason['column']} {reason['observed'][:40]} (expected {reason['expected'][:40]})"
            for reason in row["reasons"]
        )
        lines.append(f"  {row['severity']:.1f}  {row['record_key'][:60]}  {why or 'of no single column'}")
    if dataset.review.page:
        lines.append(
            f"  {dataset.review.page.rstrip('/')}/?{urlencode({'dataset': name, 'batch': batch_id})}"
        )
    return "\n".join(lines)


def send(here: Installation, dataset: Dataset, batch_id: str, say: Callable[[str], None]) -> None:
    """Say it wherever the dataset's file wants it said."""
    text = digest(here, dataset, batch_id)
    if text is None:
        return
    say(text)
    for deliver in (_to_file, _to_webhook):
        if fault := deliver(dataset, text, here.settings.home):
            say(f"the digest of {dataset.dataset} {batch_id} was not delivered: {fault}")


def _to_file(dataset: Dataset, text: str, home: Path) -> str:
    if dataset.review.digest_file is None:
        return ""
    path = home / Path(dataset.review.digest_file).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            out.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M} {text}\n")
    except OSError as fault:
        return str(fault)
    return ""


def _to_webhook(dataset: Dataset, text: str, _home: Path) -> str:
    import os

    import httpx

    name = dataset.review.webhook
    if name is None:
        return ""
    address = os.environ.get(name)
    if not address:
        return f"the environment variable {name} holds no address"
    try:
        answer = httpx.post(address, json={"text": text}, timeout=PATIENCE)
    except (httpx.HTTPError, httpx.InvalidURL) as fault:
        return f"{name}: {type(fault).__name__}"  # without the address: it is a secret
    return "" if answer.is_success else f"{name} answers {answer.status_code}"
