"""Evidence as an evaluation measures it, with numbers that a test chooses."""

from __future__ import annotations

from dataclasses import replace

from pipeline.evaluation import Churn, Difference, Evidence, Excess, Measured, Share

REASON = {
    "column": "fee",
    "observed": "9",
    "expected": "1.5",
    "low": 1.0,
    "high": 2.0,
    "share": 0.8,
    "unknown": False,
}
KINDS = ("shifted", "swapped", "category", "several")


def measured(version: int, recall: float) -> Measured:
    return Measured(
        version=version, n_learned=10_000, recall=recall, recall_of=dict.fromkeys(KINDS, recall), ranked_recall=0.6,
        negative_elbo=12.0 + version, kl_divergence=5.0, flagged=Share(10, 1000), promised_rate=0.01,
        in_tail=Share(50, 1000), gross=1.0, distinct=1.0, cpu_us=8.0, precision=Share(0, 0), confirmed=Share(0, 0),
    )  # fmt: skip


def evidence_of(
    *, against: int | None = 1, recall: float = 0.61, above: float = 0.6, record_key: str = "r_7"
) -> Evidence:
    """Version 2, as good as version 1, with one flag of ten in dispute.

    above: injected anomalies found, less the flags among the same records unaltered.
    """
    one = replace(measured(2, recall), recall_of={"shifted": 0.7, "swapped": 0.4})
    other = replace(measured(1, 0.63), recall_of={"shifted": 0.72, "swapped": 0.41})
    example = {
        "batch_id": "2026-01-30", "record_key": record_key, "by": "champion", "score": 12.5, "score_champion": 41.0,
        "p_value": 0.1, "p_value_champion": 0.001, "row_number": 7, "reasons": [REASON],
    }  # fmt: skip
    differences = {"unaltered": Difference(above, 0.01, 900), "IsolationForest": Difference(0.1, 0.01, 900)}
    beside = {
        name: Difference(-0.02, 0.01, 900) for name in ("recall", "recall of shifted", "recall of swapped")
    }
    beside["negative_elbo"] = Difference(0.2, 0.1, 900)
    return Evidence(
        dataset="orders", measured_at="2026-02-01T02:00:00.000+00:00", first_batch="2026-01-01", last_batch="2026-01-30",
        holdout=0.1, n_holdout=1000, n_recent=500, n_newest=5000, budget=0.01, challenger=one,
        champion=other if against else None, baselines={"IsolationForest": 0.5},
        differences=differences | (beside if against else {}),
        churn=Churn(30, 1, (example,), 20.0, 22.0) if against else None,
        learned=Excess(0.01, 8000, 1000) if against else None,
        changed={"train.recipe.steps": ("1200", "150")} if against else {},
    )  # fmt: skip
