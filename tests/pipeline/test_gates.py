"""Each gate fails just beyond its bound, with its reason in words, and passes just inside of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config.gates import Gates
from pipeline.evaluation import Churn, Decision, Difference, Evidence, Excess, Share, decide
from pipeline.evaluation.decision import Finding

from . import evidence_data

Changed = Mapping[
    str, Any
]  # a Difference, or a value of the evidence or of a version, by its name; see `evidence`
BASE = evidence_data.evidence_of()


def evidence(changed: Changed) -> Evidence:
    """Two versions, of which the second passes every gate but for what is changed. champion: of the first."""
    assert BASE.champion
    differences = {name: value for name, value in changed.items() if isinstance(value, Difference)}
    others = {name: value for name, value in changed.items() if name not in {*differences, "champion"}}
    whole = {name: value for name, value in others.items() if name in vars(BASE)}
    return replace(
        BASE,
        challenger=replace(BASE.challenger, **{k: v for k, v in others.items() if k not in whole}),
        champion=replace(BASE.champion, **changed.get("champion", {})),
        differences={**BASE.differences, **differences},
        **whole,
    )


def judged(changed: Changed, level: str = "required") -> Decision:
    """Every gate is of one level and has its usual bounds."""
    return decide(evidence(changed), Gates.model_validate(dict.fromkeys(Gates.model_fields, level)))


def finding(decision: Decision, gate: str) -> Finding:
    (found,) = (one for one in decision.findings if one.gate == gate)
    return found


def by(value: float) -> Difference:
    """Chance explains 2.33 standard errors of a hundredth."""
    return Difference(value, 0.01, 900)


FAILURES: list[tuple[str, Changed, Changed, str]] = [  # gate, what fails it, what does not, and why it fails
    ("collapse", {"gross": 0.89}, {"gross": 0.9}, "a gross error scores above an ordinary record only 89% of the time"),
    ("collapse", {"distinct": 0.49}, {"distinct": 0.5}, "nearly every record has the same score, or none"),
    (  # chance explains .0509 of so many
        "learned", {"learned": Excess(0.1010, 8000, 1000)}, {"learned": Excess(0.1008, 8000, 1000)},
        "at least 5.0% of the records that its training read are odder to the champion than those held out of the same batches",
    ),
    (  # with the kind that is the furthest behind
        "recall", {"recall": by(-0.1234), "recall of swapped": by(-0.03)}, {"recall": by(-0.1232)},
        "finds 61% of the injected anomalies where the champion finds 63%, 40% of kind swapped where the champion finds 41%",
    ),
    (
        "recall", {"recall of swapped": by(-0.3234)}, {"recall of swapped": by(-0.3232)},
        "finds 40% of kind swapped where the champion finds 41%",
    ),
    (
        "recall_floor", {"unaltered": by(0.0266)}, {"unaltered": by(0.0268)},
        "at its threshold it finds 61.0% of the injected anomalies, and flags 58.3% of the same records unaltered; see what "
        "sets the threshold (the training's page), or let more be flagged (flag in the dataset's file)",
    ),
    (
        "baselines", {"IsolationForest": by(-0.0734)}, {"IsolationForest": by(-0.0732)},
        "finds 60% of the injected anomalies where IsolationForest finds 50%",
    ),
    (
        "negative_elbo", {"negative_elbo": by(1.0234)}, {"negative_elbo": by(1.0232)},
        "describes the holdout worse by 1.02 nats a record",
    ),
    (  # by Wilson's interval, as below
        "flag_rate", {"flagged": Share(43, 1000)}, {"flagged": Share(42, 1000)},
        "flags 4.3 times as many records of the newest days as promised",
    ),
    (
        "flag_rate", {"flagged": Share(0, 5424)}, {"flagged": Share(0, 5423)},
        "flags 0 times as many records of the newest days as promised",
    ),
    (
        "p_values", {"in_tail": Share(123, 1000)}, {"in_tail": Share(122, 1000)},
        "gives p-values up to 5 % to 2.46 times as many records as it should",
    ),
    (
        "p_values", {"in_tail": Share(0, 1081)}, {"in_tail": Share(0, 1080)},
        "gives p-values up to 5 % to 0 times as many records as it should",
    ),
    (
        "churn", {"churn": Churn(100, 90)}, {"churn": Churn(100, 89)},
        "90 of 100 flags of the newest days come from only one of the two versions: reviewers will see other records; look at "
        "the examples (vaewatch compare)",
    ),
    (
        "seed_variance", {"another seed": by(0.0734)}, {"another seed": by(0.0732)},
        "another seed moves recall by 7.3%: training has not settled; raise train.recipe.steps or n_members",
    ),
    (
        "seed_variance", {"another seed": by(-0.0734)}, {"another seed": by(-0.0732)},
        "another seed moves recall by 7.3%: training has not settled; raise train.recipe.steps or n_members",
    ),
    (
        "cost", {"cpu_us": 24.4}, {"cpu_us": 24.0},
        "scoring a record costs 3.0 times as much; look at train.recipe",
    ),
    (
        "precision", {"precision": Share(26, 40), "champion": {"precision": Share(38, 40)}},
        {"precision": Share(27, 40), "champion": {"precision": Share(38, 40)}},
        "65% of its judged flags are anomalies, 95% under the champion",
    ),
    (
        "confirmed", {"confirmed": Share(26, 40), "champion": {"confirmed": Share(38, 40)}},
        {"confirmed": Share(27, 40), "champion": {"confirmed": Share(38, 40)}},
        "65% of the confirmed anomalies are flagged, 95% under the champion",
    ),
    (
        "kept", {"lost": ("ab12",)}, {"lost": ()},
        "it finds confirmed anomalies ordinary that the champion flags: ab12; to accept that, list them in promote.gates.kept.allowed",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "fails", "passes", "why"), FAILURES, ids=[f"{gate}: {why[:40]}" for gate, _, _, why in FAILURES]
)
def test_a_gate_fails_just_beyond_its_bound_and_says_why(
    gate: str, fails: Changed, passes: Changed, why: str
) -> None:
    """It alone refuses where it is required, and is only told where it is advisory."""
    refused = judged(fails)
    assert (refused.outcome, refused.reasons) == ("refuse", (f"{gate}: {why}",))
    told = judged(fails, "advisory")
    assert (told.outcome, told.notes) == ("promote", (f"{gate}: {why}",))
    inside = judged(passes)
    assert (inside.outcome, finding(inside, gate).verdict) == ("promote", "passed")


def test_every_gate_is_made_to_fail() -> None:
    """A new gate that never fails would look like one that always passes."""
    assert {gate for gate, *_ in FAILURES} == Gates.model_fields.keys()


@pytest.mark.parametrize(
    ("gate", "enough", "too_few"),
    [
        ("recall", {"n_holdout": 100}, {"n_holdout": 99}),
        ("learned", {"learned": Excess(0.1, 100, 900)}, {"learned": Excess(0.1, 99, 900)}),
        ("learned", {"learned": Excess(0.1, 900, 100)}, {"learned": Excess(0.1, 900, 99)}),
        ("negative_elbo", {"negative_elbo": Difference(0, 0, 100)}, {"negative_elbo": Difference(0, 0, 99)}),
        ("flag_rate", {"flagged": Share(1, 100)}, {"flagged": Share(1, 99)}),
        ("p_values", {"in_tail": Share(5, 100)}, {"in_tail": Share(5, 99)}),
        ("churn", {"churn": Churn(20, 0)}, {"churn": Churn(19, 0)}),
        ("precision", *({"precision": Share(1, n), "champion": {"precision": Share(1, 20)}} for n in (20, 19))),
        ("confirmed", *({"confirmed": Share(1, 20), "champion": {"confirmed": Share(1, n)}} for n in (20, 19))),
    ],
)  # fmt: skip
def test_a_gate_is_judged_from_as_many_records_as_it_needs(
    gate: str, enough: Changed, too_few: Changed
) -> None:
    """With one fewer it refuses nobody."""
    assert finding(judged(enough), gate).verdict == "passed"
    assert finding(judged(too_few), gate).verdict == "not judged"


@pytest.mark.parametrize(("gate", "counted"), [("flag_rate", "flagged"), ("p_values", "in_tail")])
@pytest.mark.parametrize(("mine", "nearer", "as_far"), [(600, 599, 600), (0, 1, 0)])
def test_outside_its_band_a_version_passes_beside_a_champion_that_is_as_far_out(
    gate: str, counted: str, mine: int, nearer: int, as_far: int
) -> None:
    """Else a champion that flags far too much could never be replaced by one that flags a little less."""
    n = 6000 if mine == 0 else 1000
    outcomes = [
        judged({counted: Share(mine, n), "champion": {counted: Share(theirs, n)}})
        for theirs in (nearer, as_far)
    ]
    assert [finding(one, gate).verdict for one in outcomes] == ["failed", "passed"]
    assert finding(outcomes[1], gate).reason == "outside the band, but the champion is further out"
    within = judged({"champion": {counted: Share(as_far, n)}})
    assert (finding(within, gate).verdict, finding(within, gate).reason) == ("passed", "")
