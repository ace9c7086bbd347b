"""Retention on a whole installation: what serves, is judged or published stays, and goes on serving."""

from __future__ import annotations

import json
import os

from pipeline import steps
from pipeline.evaluation import retention

from .conftest import Place


def test_the_weekly_cleaning_says_first_and_then_does_what_it_said(scored: Place) -> None:
    """Three nights later two versions are of no use to anybody; their files and copies make room."""
    scored.edit("flag:", "retention: {versions: 1}\nflag:")
    for steps_ in (70, 80):
        scored.edit(f"steps: {steps_ - 10}", f"steps: {steps_}")
        scored.train()
    here = scored.here
    dataset = here.dataset(scored.name)
    n_scored = sum(row["status"] == "scored" for row in scored.ledger())
    assert retention.published(here.ledger, here.tables(dataset), scored.name) == {1: n_scored}
    assert here.tables(dataset).model_versions() == {1: n_scored}
    second = here.registry.versions(scored.name)[1]
    copy = here.registry.fetch(second, scored.settings.home / "models")
    pages = {
        v.version: here.training_page(dataset, v.training_key) for v in here.registry.versions(scored.name)
    }
    for page in pages.values():
        long_ago = page.stat().st_mtime - 2 * retention.ABANDONED
        os.utime(page, (long_ago, long_ago))

    code, output, _ = scored.run("versions", scored.name, "--json")
    listed = {row["version"]: row for row in json.loads(output)}
    assert (code, sorted(listed)) == (0, [1, 2, 3])
    assert (listed[1]["aliases"], listed[3]["aliases"]) == (["champion"], [])
    assert listed[2]["kept"] == []
    assert listed[2]["window"] == second.tags["window"]
    assert listed[2]["metrics"]["threshold"] > 0
    code, output, _ = scored.run("versions", scored.name)
    assert (code, sum(line.rstrip().endswith(" no") for line in output.splitlines())) == (0, 1)
    code, output, _ = scored.run("versions", scored.name, "2")
    assert (code, output.count("removes it")) == (0, 1)

    code, output, _ = scored.run("prune", scored.name, "--dry-run", "--json")
    would = json.loads(output)
    assert (code, would["outcome"], sorted(scored.models())) == (0, "dry run", [1, 2, 3])
    assert set(would["kept"]) == {"1", "3"}
    assert would["kept"]["3"] == ["one of the newest 1"]
    assert would["local"] == [
        f"models/{scored.name}/{copy.name}",
        str(pages[2].relative_to(scored.settings.home)),
    ]
    code, output, _ = scored.run("prune", scored.name)
    assert code == 0
    assert "published scores of" in output
    assert sorted(scored.models()) == [1, 3]
    assert not copy.exists()
    assert [number for number, page in pages.items() if page.exists()] == [1, 3]

    again = steps.prune(scored.here, scored.name)
    assert (again.outcome, again.removed) == ("unchanged", ())
    day = next(row["batch_id"] for row in scored.ledger() if row["status"] == "scored")
    before = scored.table("scores")
    assert scored.score(day, force=True).model_version == 1
    assert scored.table("scores").equals(before)
    # the file that was just replaced is left for a week to whoever reads it
    assert steps.prune(scored.here, scored.name).outcome == "unchanged"
