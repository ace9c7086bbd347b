"""Which version of a dataset's model serves: moving the champion there and back.

Belongs here: the order of MLflow's requests, so that a process that dies in between leaves one champion, and
the next call completes the rest. Does not: single requests (versions.py), or whether a version deserves to
serve (pipeline/evaluation/).

The alias `champion` names what serves: moving it is the commit of a promotion or a rollback. What the
champion replaced, and how it came to serve, are tags on it, written before. The aliases `previous` and
`challenger` and the entry in the history follow; where a process died in between, the next call puts them
right.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pipeline.errors import NotReady
from pipeline.registry.entities import ModelVersion, Promotion
from pipeline.registry.versions import ARRIVAL, CHALLENGER, CHAMPION, PREVIOUS, REPLACED, Versions


def promote(versions: Versions, version: int | None, *, by: str, reason: str) -> Promotion:
    """Make a version champion, by default the challenger; promoting the present champion changes nothing.

    Raises:
        NotReady: there is no such version, or no challenger.
    """
    chosen = versions.known(CHALLENGER if version is None else version)
    champion = versions.find(CHAMPION)
    if champion is not None and champion.version == chosen.version:
        return _settle(versions, chosen, versions.before(champion), changed=False)
    audit = {"promoted_by": by, "promoted_at": _now(), "promoted_reason": reason}
    arrival = _arrival("promoted", chosen, champion, audit["promoted_at"], by, reason)
    replaced = champion.version if champion else None
    versions.tag(chosen, **audit, **{REPLACED: replaced, ARRIVAL: arrival})
    versions.point(CHAMPION, chosen)
    return _settle(versions, chosen, champion, changed=True, arrival=arrival)


def reject(versions: Versions, version: int, *, by: str, reason: str) -> bool:
    """Record a rejection and end the challenge; False where the version serves, or that was on record.

    Raises:
        NotReady: there is no such version.
    """
    chosen = versions.known(version)
    audit = {"rejected_by": by, "rejected_reason": reason}
    if CHAMPION in chosen.aliases:
        return False
    changed = not audit.items() <= chosen.tags.items()
    if changed:
        versions.tag(chosen, **audit, rejected_at=_now())
    if CHALLENGER in chosen.aliases:
        versions.point(CHALLENGER, None)
    return changed


def rollback(versions: Versions, *, by: str, reason: str) -> Promotion:
    """Bring back the champion before this one, once.

    Raises:
        NotReady: there is no champion, or none before it.
    """
    champion = versions.known(CHAMPION)
    earlier = versions.before(champion)
    if earlier is None:
        _settle(versions, champion, None, changed=False)
        raise NotReady(
            f"{versions.dataset}: version {champion.version} is champion, with no earlier one to go back to; "
            "promote a version by its number instead"
        )
    at = _now()
    arrival = _arrival("rolled back", earlier, champion, at, by, reason)
    versions.tag(champion, rolled_back_by=by, rolled_back_at=at, rolled_back_reason=reason)
    versions.tag(earlier, **{REPLACED: None, ARRIVAL: arrival})
    versions.point(CHAMPION, earlier)
    return _settle(versions, earlier, None, changed=True, arrival=arrival)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _arrival(
    what: str, version: ModelVersion, replaced: ModelVersion | None, at: str, by: str, reason: str
) -> str:
    """Describe how a version comes to serve, on what evidence."""
    return json.dumps({
        "what": what,
        "at": at,
        "version": version.version,
        "replaced": replaced.version if replaced else None,
        "by": by,
        "reason": reason,
        "decision": version.tags.get("decision", ""),
        "evaluated_at": version.tags.get("evaluated_at", ""),
    })


def _settle(
    versions: Versions,
    champion: ModelVersion,
    previous: ModelVersion | None,
    changed: bool,
    arrival: str | None = None,
) -> Promotion:
    """Bring the other aliases and the history in line with the champion."""
    versions.arrived(arrival or champion.tags.get(ARRIVAL))
    versions.point(PREVIOUS, previous)
    if CHALLENGER in champion.aliases:
        versions.point(CHALLENGER, None)
    return Promotion(versions.dataset, champion.version, previous.version if previous else None, changed)
