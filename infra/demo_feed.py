"""What a demo is run with: generated card payments, or the newest deliveries of somebody's own folder.

Belongs here: which files land, in which order, and where the demo of a folder lives. Does not: landing them
(demo.py).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from infra.demo_outcome import near
from pipeline.config.settings import Settings
from pipeline.incoming import batches
from pipeline.installation import Installation

DAYS = 30
HISTORY_SHARE = 2 / 3
NEWEST, FOLLOWING = 37, 7  # of somebody's own deliveries: 30 to learn from and a week to score
NEWEST_CUT = 3  # of deliveries that hold many batches each
Say = Callable[[str], None]


@dataclass(frozen=True)
class Feed:
    """Deliveries in the order in which they will land.

    Attributes:
        history, following: files that land before and after the first training.
        source: folder that the paths are relative to.
        truth: labelled anomalies; None for somebody's own data.
    """

    dataset: str
    source: Path
    history: tuple[str, ...]
    following: tuple[str, ...]
    truth: Path | None = None


def sample_data(say: Say) -> tuple[Installation, Feed]:
    """Return generated card payments, with the truth about each; make them where they are missing."""
    from pipeline.sample import SamplePlan, generate

    here = Installation()
    source = here.settings.home / "sample"
    if not (source / "truth" / "payments.parquet").exists():
        say(f"making {DAYS} days of card payments in {near(source)}")
        generate(source, SamplePlan(days=DAYS))
    files = sorted(path.name for path in (source / "incoming" / "payments").glob("*.parquet"))
    cut = round(len(files) * HISTORY_SHARE)
    return here, Feed(
        "payments",
        source / "incoming" / "payments",
        tuple(files[:cut]),
        tuple(files[cut:]),
        source / "truth" / "payments.parquet",
    )


def own_data(folder: Path, say: Say) -> tuple[Installation, Feed]:
    """Return somebody's own files, untouched: links to them land, one by one, in a folder of the demo's."""
    from pipeline.inference import default_name, propose

    folder = folder.expanduser().absolute()
    name = default_name(folder)
    home = home_of(Installation().settings.home, name, folder)
    os.environ |= {"VAEWATCH_HOME": str(home), "VAEWATCH_DATASETS": str(home / "datasets")}
    here = Installation(Settings())
    target = home / "datasets" / f"{name}.yaml"
    if not target.exists():
        say(f"inferring a contract from {near(folder)}")
        settings = here.settings
        guess = propose(
            folder, name, relative_to=folder, threads=settings.cores, scratch=home / "work" / "init"
        )
        landing = guess.text.replace("  path: .\n", f"  path: {home / 'incoming'}\n  settle_seconds: 3\n")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(landing, encoding="utf-8")
        for warning in guess.warnings:
            say(f"  look at {escape(warning)}")
    say(f"contract: {near(target)}")
    dataset = here.dataset(name)
    aside = dataset.model_copy(
        update={
            "incoming": dataset.incoming.model_copy(
                # nobody delivers there now, so nothing has to settle
                update={"path": str(folder), "split": None, "settle_seconds": 0.0}
            )
        }
    )
    deliveries = batches.landed(aside, here.ledger)
    split = dataset.incoming.split
    taken = deliveries[-(NEWEST_CUT if split else NEWEST) :]
    each = f"each cut into batches of a {split}" if split else "a batch each"
    say(f"the demo takes the newest {len(taken)} of {len(deliveries)} deliveries, {each}")
    n_following = min(FOLLOWING, len(taken) // 3)
    history, following = (
        tuple(file.relative for batch in part for file in batch.files)
        for part in (taken[: len(taken) - n_following], taken[len(taken) - n_following :])
    )
    return here, Feed(name, folder, history, following)


def home_of(given: Path, name: str, folder: Path) -> Path:
    """Return where the demo of a folder lives, always the same; folders with the same name have a home each.

    Args:
        given: VAEWATCH_HOME; the end of a demo says to set it to the demo's own.
    """
    above = given.parent if re.fullmatch(rf"demo-{re.escape(name)}(-\d+)?", given.name) else given
    for n in itertools.count(1):
        home = above / (f"demo-{name}" if n == 1 else f"demo-{name}-{n}")
        of = home / "folder"
        if not of.exists():
            home.mkdir(parents=True, exist_ok=True)
            of.write_text(str(folder), encoding="utf-8")
        if of.read_text(encoding="utf-8") == str(folder):
            return home
    raise AssertionError
