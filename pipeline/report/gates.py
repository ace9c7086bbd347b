"""What the gates said of a version, as the pages show it.

Belongs here: the facts of the section, and its place on a training's page, which is written before anybody
has judged. Does not: judging (evaluation/), or how it looks (templates/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.evaluation.told import Told, told
from pipeline.installation import Installation
from pipeline.report import sheet, training
from pipeline.report.standing import standing

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion

FLOOR = "recall_floor"  # the gate that tells whether a lack of flags means anything


@dataclass(frozen=True)
class Judgement:
    """What was decided of a version, and why.

    Attributes:
        against: the version that it was compared with; empty where there was none.
        serves: whether a version served then, comparable or not.
        model, run: addresses in MLflow; empty where there is none.
        review: address of the records that the two disagree on; empty where there is none.
    """

    dataset: str
    version: int
    told: Told
    against: str
    at: str
    serves: bool = False
    model: str = ""
    run: str = ""
    review: str = ""

    @property
    def misses(self) -> str:
        """Why few flags of the version say little; empty where nothing is known against it."""
        failed = (row.reason for row in self.told.rows if row.gate == FLOOR and row.verdict == "failed")
        return next(failed, "")


def judgement(here: Installation, dataset: Dataset, version: ModelVersion) -> Judgement | None:
    """Return what a version was judged by here; None where it was not judged, or the evidence is gone.

    Raises:
        RegistryUnreachable: a retry may help.
    """
    kept = here.registry.evaluation(version) if "decision" in version.tags else None
    if kept is None:
        return None
    name, tags, page = dataset.name, version.tags, dataset.review.page
    return Judgement(
        dataset=name,
        version=version.version,
        told=told(kept, tags["decision_reason"]),
        against=tags.get("evaluated_against", ""),
        at=sheet.when(tags["evaluated_at"]),
        serves=bool(kept["evidence"]["champion"] or kept["evidence"]["incomparable"]),
        model=here.model_page(name, version.version) or "",
        run=here.run_page(version.run_id) or "",
        review=f"{page.rstrip('/')}/disagreements/{name}" if page else "",
    )


def onto_training_page(here: Installation, dataset: Dataset, version: ModelVersion) -> None:
    """Replace a version's standing and judgement on the page of its training, in MLflow and here.

    Raises:
        RegistryUnreachable, StorageFailed: a repeat completes it.
    """
    said = judgement(here, dataset, version)
    sections = {"answer": sheet.render("answer.html", answer=standing(dataset, version, said))}
    if said is not None:
        sections["judgement"] = sheet.render("judgement.html", judgement=said)

    def put(page: str) -> str:
        for name, section in sections.items():
            before, begin, rest = page.partition(f"<!-- {name} -->")
            _, end, after = rest.partition(f"<!-- end of {name} -->")
            page = f"{before}{begin}\n{section}\n{end}{after}" if end else page
        return page

    page = here.registry.amend(version, training.FILE, put)
    if page is not None:
        sheet.write(here.training_page(dataset, version.training_key), page)
