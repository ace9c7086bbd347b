"""A short message after each batch: how many, the three most severe with their reasons, where to look.

Belongs here: the words, and handing them on: to the log, a file, a webhook, by e-mail. Does not: when
(steps/). Nothing to say is not said. A message that cannot be delivered is told in the log; the batch is
scored all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from pipeline.config import Dataset
from pipeline.errors import NotDelivered
from pipeline.installation import Installation
from pipeline.review import intake, queue
from pipeline.review.filters import Filters

SHOWN = 3
PATIENCE = 10.0  # seconds

Channel = Callable[[str], None]  # hands a text on; raises NotDelivered


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


def tell(
    here: Installation, dataset: Dataset, batch_id: str, say: Callable[[str], None], *, aloud: bool = True
) -> None:
    """Say it in the log where that is to be (aloud), and wherever the dataset's file wants it said."""
    text = digest(here, dataset, batch_id)
    if text is not None:
        if aloud:
            say(text)
        send(text, channels(here, dataset), say)


def channels(here: Installation, dataset: Dataset) -> list[Channel]:
    """Where a dataset's file wants messages."""
    asked, found = dataset.review, list[Channel]()
    if asked.digest_file is not None:
        found.append(partial(_to_file, here.settings.home / Path(asked.digest_file).expanduser()))
    if asked.webhook is not None:
        found.append(partial(_to_webhook, asked.webhook))
    if asked.email:
        found.append(lambda text: here.post(asked.email, text.partition("\n")[0], text))
    return found


def send(text: str, to: Sequence[Channel], say: Callable[[str], None]) -> None:
    """Hand a message on to every channel; what was not delivered is said, and keeps no other one from it."""
    for deliver in to:
        try:
            deliver(text)
        except NotDelivered as fault:
            say(f"not delivered: {fault}: {text.partition(chr(10))[0]}")


def _to_file(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            out.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC} {text}\n")
    except OSError as fault:
        raise NotDelivered(str(fault)) from fault


def _to_webhook(name: str, text: str) -> None:
    import os

    import httpx

    address = os.environ.get(name)
    if not address:
        raise NotDelivered(f"the environment variable {name} holds no address")
    try:
        answer = httpx.post(address, json={"text": text}, timeout=PATIENCE)
    except (httpx.HTTPError, httpx.InvalidURL) as fault:
        raise NotDelivered(f"{name}: {type(fault).__name__}") from None  # without the address: it is a secret
    if not answer.is_success:
        raise NotDelivered(f"{name} answers {answer.status_code}")
