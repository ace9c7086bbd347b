"""What the gates said of a version, as the pages show it.

Belongs here: the facts of the section, and its place on a training's page, which is written before anybody
has judged. Does not: judging (evaluation/), or how it looks (templates/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import Dataset
from pipeline.installation import Installation
from pipeline.report import sheet, training

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion

BEGIN, END = (
    "<!-- judgement -->",
    "<!-- end of judgement -->",
)  # text from data cannot hold them: it is escaped


@dataclass(frozen=True)
class Judgement:
    """What was decided of a version, and why.

    Attributes:
        sentence: the decision's, without its first word, which is the outcome.
        against: the version that served then; empty where none did.
        gates: decision.Finding as dictionaries.
        model, run: addresses in MLflow; review: of the records that the two disagree on. Empty where they
            have none.
    """

    dataset: str
    version: int
    outcome: str
    sentence: str
    against: str
    at: str
    gates: Sequence[Mapping[str, Any]]
    model: str = ""
    run: str = ""
    review: str = ""


def judgement(here: Installation, dataset: Dataset, version: ModelVersion) -> Judgement | None:
    """What a version was judged by here; None where it was not judged, or the evidence is gone.

    Raises:
        RegistryUnreachable: a retry may help.
    """
    kept = here.registry.evaluation(version) if "decision" in version.tags else None
    if kept is None:
        return None
    name, tags, page = dataset.dataset, version.tags, dataset.review.page
    return Judgement(
        dataset=name,
        version=version.version,
        outcome=tags["decision"],
        sentence=tags["decision_reason"].removeprefix("refused: ").removeprefix("waits: "),
        against=tags.get("evaluated_against", ""),
        at=sheet.when(tags["evaluated_at"]),
        gates=kept["decision"]["findings"],
        model=here.model_page(name, version.version) or "",
        run=here.run_page(version.run_id) or "",
        review=f"{page.rstrip('/')}/disagreements/{name}" if page else "",
    )


def onto_training_page(here: Installation, dataset: Dataset, version: ModelVersion) -> None:
    """Put a judgement into the page of the version's training, in MLflow and here, in place of an earlier
    one.

    Raises:
        RegistryUnreachable, StorageFailed: a repeat completes it.
    """
    said = judgement(here, dataset, version)
    if said is None:
        return
    section = sheet.render("judgement.html", judgement=said)

    def put(page: str) -> str:
        before, begin, rest = page.partition(BEGIN)
        _, end, after = rest.partition(END)
        return f"{before}{begin}\n{section}\n{end}{after}" if end else page

    page = here.registry.amend(version, training.FILE, put)
    if page is not None:
        sheet.write(here.training_page(dataset, version.training_key), page)
