"""Who is challenger: the version to judge next, and who gets the seat once it was judged.

Belongs here: the rule, and the one request to the registry that follows from it. Does not: measuring and
deciding (evaluating.py), or what becomes of a challenger (serving.py).

Only a recorded judgement gives the seat. A version that nobody judged never gets it, and a process that dies
in between leaves it as it was: the next evaluation finds the judgement and completes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion, Registry

STANDS = {"promote": "passed and waits for somebody's word", "wait": "is in its shadow"}
DONE_WITH = {"promoted_by", "rolled_back_by", "rejected_by"}  # tags: it has served, or a person said no


@dataclass(frozen=True)
class Seat:
    """What a judgement did to the challenger's seat.

    Attributes:
        alias: what the judged version is now, `challenger` or nothing.
        words: who makes way, or stays, where there is another one.
    """

    alias: str = ""
    words: str = ""


def candidate(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """Return the version to judge where none is named.

    A challenger in its shadow; else the newest, unless it has served or was rejected; else the challenger, or
    the champion.

    Args:
        versions: all of a dataset, oldest first.
    """
    challenger, champion = _named(versions, "challenger"), _named(versions, "champion")
    if challenger and _decision(challenger) == "wait":
        return challenger
    if versions and not DONE_WITH & versions[-1].tags.keys():
        return versions[-1]
    return challenger or champion


def settle(registry: Registry, judged: ModelVersion, champion: ModelVersion | None) -> Seat:
    """Give the seat to a judged version, take it away, or leave it; a repeat changes nothing.

    Raises:
        RegistryUnreachable: a repeat completes it.
    """
    name, standing = judged.dataset, registry.challenger(judged.dataset)
    # judged again and refused, or from a release that did not judge first
    if standing and _decision(standing) not in STANDS:
        registry.set_challenger(name, None)
        standing = None
    if standing and standing.version == judged.version:
        return Seat("challenger")
    if _takes(judged, standing, champion):
        registry.set_challenger(name, judged.version)
        said = (
            f"it takes the place of version {standing.version}, which {_stands(standing)}" if standing else ""
        )
        return Seat("challenger", said)
    return Seat(
        "", f"version {standing.version} stays challenger: it {_stands(standing)}" if standing else ""
    )


def _takes(judged: ModelVersion, standing: ModelVersion | None, champion: ModelVersion | None) -> bool:
    """Return whether a judged version takes the seat.

    It must be newer than whoever has the seat or serves, and not go into a shadow where another passed.
    """
    if _decision(judged) not in STANDS or DONE_WITH & judged.tags.keys():
        return False
    newer = all(judged.version > other.version for other in (standing, champion) if other)
    passed = standing is not None and _decision(standing) == "promote"
    return newer and not (passed and _decision(judged) == "wait")


def _named(versions: Sequence[ModelVersion], alias: str) -> ModelVersion | None:
    return next((version for version in versions if alias in version.aliases), None)


def _decision(version: ModelVersion) -> str:
    return version.tags.get("decision", "")


def _stands(version: ModelVersion) -> str:
    return STANDS[_decision(version)]
