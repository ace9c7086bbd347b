"""The page of one batch, and the facts on it.

Belongs here: where each fact comes from: the ledger, the queue, the registry's record of the version. Does
not: whether it can be trusted (trust.py), or how it looks (templates/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pipeline.config.dataset import Dataset
from pipeline.errors import NotReady, RegistryUnreachable
from pipeline.incoming.batches import is_undated
from pipeline.installation import Installation
from pipeline.misread import meant
from pipeline.monitoring import store
from pipeline.monitoring.extremes import is_compared
from pipeline.monitoring.findings import gathered
from pipeline.monitoring.judgement import FAR, times_expected
from pipeline.monitoring.store import Watched
from pipeline.monitoring.watch import judge_again
from pipeline.records import looking_back
from pipeline.records.standing import standing
from pipeline.records.window import order
from pipeline.report import plots, sheet, training
from pipeline.report.gates import Judgement, judgement
from pipeline.report.standing import evidence, recall, withdrawn
from pipeline.report.trust import CONTRACT, Trust, trust
from pipeline.results import flagging
from pipeline.review import queue
from pipeline.review.filters import Filters
from pipeline.review.queued import Listed
from pipeline.storage.ledger import BatchState

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion

FILE = "run.html"
SHOWN, DRAWN, TREND = 5, 8, 45  # flagged records, columns, batches


@dataclass(frozen=True)
class Report:
    """A page that was written."""

    batch_id: str
    path: Path
    trust: Trust

    def as_dict(self) -> dict[str, str]:
        return {
            "batch_id": self.batch_id,
            "path": str(self.path),
            "verdict": self.trust.word,
            "headline": self.trust.headline,
            "why": self.trust.why,
            "unscored": self.trust.unscored,
            "learned": self.trust.learned,
            "finds": self.trust.finds,
        }


def path_of(here: Installation, dataset: Dataset, batch_id: str) -> Path:
    """Return where a batch's page is, or would be."""
    return here.page(dataset, batch_id) / FILE


def rewrite(here: Installation, dataset: Dataset, batch_id: str | None = None) -> Report:
    """Write the page of a batch, by default the newest one, from what is known now.

    Raises:
        NotReady: no such batch was ever validated.
    """
    if batch_id is None:
        newest = max(here.ledger.current(dataset.name).values(), key=order, default=None)
        batch_id = newest.batch_id if newest else None
    state = here.ledger.newest(dataset.name, batch_id) if batch_id else None
    if state is None:
        known = meant(batch_id, here.ledger.current(dataset.name)) if batch_id else ""
        wanted = (
            f"batch {batch_id!r} was never validated; {known}" if batch_id else "no batch was ever validated"
        )
        raise NotReady(f"{dataset.name}: {wanted} (see `vaewatch status {dataset.name}`)")
    judge_again(here, dataset, state.batch_id, here.ledger.current(dataset.name))
    written = write(here, dataset, state, *_version(here, dataset, state), stale=_outdated(here, state))
    if state.status == "scored":
        here.ledger.note_headline(state, written.trust.tone, written.trust.headline)
    return written


def _version(
    here: Installation, dataset: Dataset, state: BatchState
) -> tuple[ModelVersion | None, Judgement | None]:
    """Return the version that scored a batch and its judgement, each None where the registry cannot tell."""
    version = None
    with suppress(RegistryUnreachable):
        found = here.registry.versions(dataset.name) if state.model_version is not None else []
        version = next((one for one in found if one.version == state.model_version), None)
        return version, judgement(here, dataset, version) if version else None
    return version, None


def write(
    here: Installation,
    dataset: Dataset,
    state: BatchState,
    version: ModelVersion | None,
    judged: Judgement | None = None,
    *,
    stale: str = "",
) -> Report:
    """Write a batch's page.

    Args:
        judged: what the version was judged by. It is the same for every batch that the version scores, so a
            caller that writes many reads it once.
        stale: which of the records that it looked back on have changed; empty for what was scored just now.

    Raises:
        StorageFailed: it could not be written.
    """
    links = _links(here, dataset, state, version) | _beside(here, dataset, state, version)
    said, html = _page(here, dataset, state, version, judged, stale, links)
    return Report(state.batch_id, sheet.write(path_of(here, dataset, state.batch_id), html), said)


def away(here: Installation, dataset: Dataset, state: BatchState, version: ModelVersion) -> str:
    """Return a batch's page for a place without the pages beside it: it has no links to them."""
    judged, links = judgement(here, dataset, version), _links(here, dataset, state, version)
    return _page(here, dataset, state, version, judged, _outdated(here, state), links)[1]


def _page(
    here: Installation,
    dataset: Dataset,
    state: BatchState,
    version: ModelVersion | None,
    judged: Judgement | None,
    stale: str,
    links: Mapping[str, str],
) -> tuple[Trust, str]:
    watched = store.one(here.ledger, dataset.name, state.batch_id) if state.status == "scored" else None
    before = store.before(here.ledger, dataset.name, watched.day, state.batch_id) if watched else []
    earlier = [one for one in before if not is_undated(one.batch_id)][-TREND:]  # undated batches are no night
    serving = here.ledger.serving_version(dataset.name)
    said = trust(
        dataset,
        state,
        gathered(watched.findings, dataset) if watched else None,
        _held_against(watched, earlier),
        serving=serving,
        misses=judged.misses if judged else "",
        withdrawn=withdrawn(version, serving) if version else "",
        outdated=stale,
        recall=recall(version) if version else None,
        is_learned=bool(watched and watched.measures.learned),
        stands=_stands(here, state),
        is_reach_known=watched is not None and is_compared(watched.measures, earlier),
    )
    html = sheet.render(
        "batch.html",
        dataset=dataset,
        state=state,
        trust=said,
        watched=watched,
        excess=excess(watched) if watched else "",
        findings=_drawn(watched, dataset) if watched else [],
        columns=_columns(watched) if watched else [],
        missing=missing_share(watched) if watched else 0.0,
        trends=_trends(earlier, watched) if watched else [],
        flagged=_flagged(here, dataset, state),
        drivers=_drivers(here, dataset, state),
        version=version,
        evidence=evidence(version) if version else [],
        judgement=judged,
        rules=flagging.changes(here.ledger, dataset.name, state.model_version) if state.model_version else [],
        links=links,
        contract=CONTRACT,
        n_earlier=_held_against(watched, earlier),
        n_drawn=len(earlier) + 1,
        asked=urlencode({"dataset": dataset.name, "batch": state.batch_id}),
        all_batches=urlencode({"dataset": dataset.name}),
    )
    return said, sheet.linked(html, dataset.review.page) if dataset.review.page else html


def _stands(here: Installation, state: BatchState) -> str:
    """Say what of a batch that is not scored was published before, and is still; empty where nothing is."""
    earlier = [one for one in here.ledger.history(state.dataset, state.batch_id) if one != state]
    found = standing(earlier, state)
    return found.words if found else ""


def _outdated(here: Installation, state: BatchState) -> str:
    """Say which of the records that a batch looked back on have changed; empty where none has."""
    if state.looks_since is None:
        return ""
    behind = looking_back.outdated(here.ledger.current(state.dataset).values()).get(state.batch_id)
    return "" if behind is None else looking_back.words(behind)


def _held_against(watched: Watched | None, earlier: Sequence[Watched]) -> int:
    """Return how many batches this one was compared with; if that was not recorded, how many there are."""
    noted = watched.measures.n_earlier if watched else None
    return len(earlier) if noted is None else noted


def excess(watched: Watched) -> str:
    """Say that more are flagged than chance does, where that is no finding; else return ""."""
    times = times_expected(watched.measures)
    if times is None or any(finding.key == "flags" for finding in watched.findings):
        return ""
    said = min(times, FAR - 0.1)  # 2.96 is not yet three times
    return f": {said:.1f} times as many; days differ by that much, a warning needs {FAR:g} times"


def missing_share(watched: Watched) -> float:
    """Return the share of missing values over all columns that the model reads."""
    columns = watched.measures.columns.values()
    return sum(drift.missing for drift in columns) / max(1, len(columns))


def _drawn(watched: Watched, dataset: Dataset) -> list[dict[str, Any]]:
    """Return the findings, a column's first one with its plot."""
    columns, found, drawn = watched.measures.columns, [], set[str]()
    for finding in gathered(watched.findings, dataset):
        kind = finding.key.partition(":")[0]
        plot = None
        if kind in {"drift", "new"} and finding.column not in drawn and len(drawn) < DRAWN:
            plot = plots.column(finding.column, columns[finding.column])
            drawn.add(finding.column)
        found.append({"finding": finding, "plot": plot})
    return found


def _columns(watched: Watched) -> list[tuple[str, Any]]:
    return sorted(watched.measures.columns.items(), key=lambda item: (-item[1].divergence, item[0]))


def _trends(earlier: Sequence[Watched], watched: Watched) -> list[dict[str, Any]]:
    """Return the numbers that say how nights go, over the newest batches."""
    batches = [*earlier, watched]
    rows = (
        ("Flagged records", "flags", lambda m: float(m.n_flagged), "{:,.0f}"),
        (
            "Chance that a record scores above a normal one (usually half)",
            "scores",
            lambda m: m.above,
            "{:.0%}",
        ),
        ("p-values of 0.01 or less", "tail", lambda m: m.tail, "{:.1%}"),
        ("Set aside by the contract", "set_aside", lambda m: m.n_set_aside / max(1, m.n_read), "{:.2%}"),
        ("Records delivered", "volume", lambda m: float(m.n_read), "{:,.0f}"),
    )
    labels = [batch.batch_id for batch in batches]
    found = []
    for title, key, read, style in rows:
        values = [read(batch.measures) for batch in batches]
        seen = [value for value in values if value is not None]
        if not seen or values[-1] is None:
            continue
        marked = [any(f.key == key for f in batch.findings) for batch in batches]
        now, low, high = (style.format(value) for value in (values[-1], min(seen), max(seen)))
        said = f"{title}, {labels[0]} to {labels[-1]}: now {now}, between {low} and {high}"
        found.append({"title": title, "now": now, "low": low, "high": high, "plot": plots.line(values, labels, marked, said), "told": marked[-1]})  # fmt: skip
    return found


def _flagged(here: Installation, dataset: Dataset, state: BatchState) -> Sequence[Listed]:
    mine = Filters(dataset=dataset.name, batch=state.batch_id, kind="flagged")
    return queue.page(here.ledger, mine, limit=SHOWN).rows


def _drivers(here: Installation, dataset: Dataset, state: BatchState) -> list[tuple[str, int]]:
    """Return the four columns that drive the most flagged records, with the counts."""
    mine = Filters(dataset=dataset.name, batch=state.batch_id, kind="flagged")
    found = queue.counts(here.ledger, mine)["driver"]
    return [
        (str(name), n) for name, n in sorted(found.items(), key=lambda item: (-item[1], str(item[0])))[:4]
    ]


def _links(
    here: Installation, dataset: Dataset, state: BatchState, version: ModelVersion | None
) -> dict[str, str]:
    """Return the addresses of the model and its run in MLflow, where there are any."""
    found = {}
    if state.model_version and (model := here.model_page(dataset.name, state.model_version)):
        found["model"] = model
    if version and (run := here.run_page(version.run_id)):
        found["run"] = run
    return found


def _beside(
    here: Installation, dataset: Dataset, state: BatchState, version: ModelVersion | None
) -> dict[str, str]:
    """Return relative links to the contract's and the training's page; they work on the review page, too."""
    found, folder = {}, here.page(dataset, state.batch_id)
    if (folder / "index.html").exists():
        found["contract"] = "index.html"
    if version and (training_page := training.path_of(here, dataset, version)):
        found["training"] = relpath(training_page, folder)
    return found
