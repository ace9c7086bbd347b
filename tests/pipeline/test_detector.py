"""Features, model and calibration as one piece: what training on a window and refitting promise."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.dataset import Dataset, Flagging
from pipeline.detection import fitting
from pipeline.detection.detector import Detector
from pipeline.detection.features import Features
from pipeline.detection.intervals import gaussian
from pipeline.detection.reasons import explanations
from pipeline.detection.recipe import recipe_of
from pipeline.errors import ConfigError, ModelUnusable
from pipeline.records.verdicts import JUDGED_NORMAL, PLACE
from vae_core import Attribution, CellCritic, Expected, Layout, Records

CONTRACT = {
    "dataset": "sensors",
    "incoming": {"path": "."},
    "columns": {
        "level": {"type": "float", "role": "numeric"},
        "flow": {"type": "float", "role": "numeric"},
        "site": {"type": "string", "role": "categorical"},
    },
    "train": {"min_records": 50, "recipe": {"steps": 300, "n_members": 2, "width": 32}},
}
DATASET = Dataset.model_validate(CONTRACT)


def readings(n: int, seed: int, *, level: float = 0.0, site: str = "a") -> pa.Table:
    """Flow follows level; sites a and b, or one other."""
    random = np.random.default_rng(seed)
    levels = random.normal(level, 1, n)
    return pa.table({
        "level": levels,
        "flow": levels + random.normal(0, 0.2, n),
        "site": random.choice([site, "b"], n).tolist(),
    })


def weights(detector: Detector) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in detector.vae.state_dict().items()}


def same(one: Detector, other: Detector) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True)
    )


def test_a_refitted_detector_knows_the_newest_days(tmp_path: Path) -> None:
    """The level rose and a site opened in the days kept for calibration: tomorrow is like those."""
    older, newest, tomorrow = (
        readings(2000, 1),
        readings(500, 2, level=6.0, site="c"),
        readings(500, 3, level=6.0, site="c"),
    )
    known = Detector.train(DATASET, older, newest, records_per_day=100)
    refitted = known.refit(DATASET, older, newest)
    before, after = (d.score_table(tomorrow)["anomaly_score"].to_numpy() for d in (known, refitted))
    assert np.median(after) < np.median(before) - 2
    old = refitted.score_table(readings(500, 4))["anomaly_score"].to_numpy()
    assert np.median(old) < np.median(before)
    assert refitted.calibration.n == known.calibration.n
    assert refitted.vae.recipe == known.vae.recipe
    refitted.save(tmp_path)
    assert same(Detector.load(tmp_path), refitted)


def test_the_days_for_calibration_are_new_to_the_model_that_is_calibrated() -> None:
    """A site that opened in them is as strange to it as any site will be that opens tomorrow."""
    known = Detector.train(DATASET, readings(2000, 1), readings(500, 2, site="c"), records_per_day=100)
    assert "c" in known.features.categorical["site"]
    at_c, at_d = (
        np.median(known.score_table(readings(300, 5, site=s))["anomaly_score"].to_numpy()) for s in ("c", "a")
    )
    assert at_c > at_d + 1


def test_refitting_leaves_the_error_rate_where_it_was_promised() -> None:
    """On records like those it learned from, a twentieth is flagged at 5 %: neither training nor refitting
    bends it.

    Of 20,000 records about 1,000 are flagged. The threshold is one of 1,000 scores: its own error rate has a
    standard deviation of 0.7 %. Bounds of 4.5 of these: a false alarm in 150,000 runs.
    """
    older, newest = readings(4000, 1), readings(1000, 2)
    known = Detector.train(DATASET, older, newest, records_per_day=100)
    refitted = known.refit(DATASET, older, newest)
    flag = Flagging(review_budget=None, error_rate=0.05)
    new = readings(20_000, 6)
    for detector in (known, refitted):
        flagged, _ = detector.calibration.flags(
            detector.score_table(new)["anomaly_score"].to_numpy(), flag, 100
        )
        assert abs(flagged.mean() - 0.05) < 4.5 * 0.007


def test_verdicts_weigh_the_score_of_the_model_that_serves(tmp_path: Path) -> None:
    """As the calibrated model's terms say, which has not learned the judged records; and those of its days
    are calibrated on.
    """
    dataset = Dataset.model_validate(CONTRACT | {"train": {"recipe": {"steps": 100, "n_members": 2}}})
    older, newest = (
        readings(n, seed).append_column(JUDGED_NORMAL, pa.array(np.arange(n) < n_judged))
        for n, seed, n_judged in ((800, 1, 0), (200, 2, 30))
    )
    odd = readings(40, 3)
    odd = odd.set_column(1, "flow", pc.negate(odd["flow"]))
    place = (
        [-1] * 5 + [400] * 5 + [900] * 29 + [1001]
    )  # not among the records, learned days, calibrated days, later
    odd = odd.append_column(PLACE, pa.array(place))
    known = Detector.train(dataset, older, newest, odd, records_per_day=100)
    refitted = known.refit(dataset, older, newest, odd)
    assert known.calibration.n == newest.num_rows + 29
    assert not torch.equal(known.vae.weights, torch.ones(4))
    assert torch.equal(refitted.vae.weights, known.vae.weights)
    refitted.save(tmp_path)
    assert torch.equal(Detector.load(tmp_path).vae.weights, known.vae.weights)
    scores, told = refitted.score_table(odd).to_pylist(), refitted.explain(odd, dataset)
    for row, said in zip(scores, told, strict=True):  # three columns: all of their terms are told
        added = sum(term["nats"] for term in said.terms) + refitted.kl_weight * row["kl_divergence"]
        assert added == pytest.approx(row["anomaly_score"], rel=1e-4, abs=1e-3)


def test_a_category_that_training_did_not_have_is_told_as_such() -> None:
    """It is odd for another reason than one that is merely unlikely here."""
    known = Detector.train(DATASET, readings(500, 1), readings(100, 2), records_per_day=100)
    odd = pa.table({"level": [0.0, 0.0], "flow": [0.0, 5.0], "site": ["z", "b"]})
    new, usual = (
        {reason["column"]: reason["unknown"] for reason in said.reasons}
        for said in known.explain(odd, DATASET)
    )
    assert new["site"] is True
    assert usual["flow"] is False


class Killed(Exception):
    """Stands for a worker that dies."""


def test_a_critic_without_room_on_a_gpu_is_trained_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It needs all of a window on its device, which a fit does not. A device that is not the CPU stands for a
    full GPU.
    """
    table, train = readings(200, 1), fitting.fit_critic

    def full(layout: Layout, records: Records, *, seed: int, steps: int) -> CellCritic | None:
        if records.device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(layout, records, seed=seed, steps=steps)

    def witness(device: str) -> dict[str, torch.Tensor]:
        features = Features.fit(DATASET, table)
        found = fitting.fit_second_witness(DATASET, features, table, fitting.Run(device))
        assert found is not None
        return found.state_dict()

    monkeypatch.setattr(fitting, "fit_critic", full)
    expected, found = witness("cpu"), witness("meta")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert "sensors: the critic is trained on the CPU instead of meta: CUDA out of memory" in caplog.text


@pytest.mark.parametrize("step", ["train", "refit"])
def test_a_training_that_died_ends_as_if_it_had_not(tmp_path: Path, step: str) -> None:
    """Both parts go on from their last checkpoint and give the same weights to the bit."""
    dataset = Dataset.model_validate(
        CONTRACT | {"train": {"min_records": 50, "recipe": {"steps": 900, "n_members": 2, "width": 8}}}
    )
    older, newest = readings(500, 1), readings(200, 2)

    def work(folder: Path, dies_at: int | None) -> Detector:
        def watch(progress: Any) -> None:
            if dies_at is not None and progress.step >= dies_at:
                raise Killed

        known = Detector.train(
            dataset,
            older,
            newest,
            records_per_day=100,
            checkpoint=folder / "train.safetensors",
            on_progress=watch if step == "train" else None,
        )
        return known.refit(
            dataset,
            older,
            newest,
            checkpoint=folder / "refit.safetensors",
            on_progress=watch,
        )

    with pytest.raises(Killed):
        work(tmp_path / "killed", dies_at=275)
    assert (tmp_path / "killed" / f"{step}.safetensors").exists()
    assert same(work(tmp_path / "killed", None), work(tmp_path / "whole", None))


def test_a_checkpoint_that_is_of_no_use_is_named(tmp_path: Path) -> None:
    """Of other records, or cut off: whoever is woken is told which file to remove."""
    from pipeline.errors import ModelUnusable

    dataset = Dataset.model_validate(
        CONTRACT | {"train": {"min_records": 50, "recipe": {"steps": 250, "n_members": 1, "width": 8}}}
    )
    file = tmp_path / "train.safetensors"
    settings: dict[str, Any] = {"records_per_day": 100, "checkpoint": file}
    Detector.train(dataset, readings(200, 1), readings(50, 2), **settings)
    with pytest.raises(ModelUnusable, match=rf"in: records; .*remove {file} and train again"):
        Detector.train(dataset, readings(200, 3), readings(50, 2), **settings)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        ModelUnusable, match=rf"the training cannot resume from {file} .*remove it and train again"
    ):
        Detector.train(dataset, readings(200, 1), readings(50, 2), **settings)


def test_a_table_without_a_needed_column_says_so() -> None:
    """The contract changed since the model was trained."""
    from pipeline.errors import ModelUnusable

    known = Detector.train(DATASET, readings(200, 1), readings(50, 2), records_per_day=100)
    with pytest.raises(ModelUnusable, match=rf"needs columns 'flow'.*vaewatch train {DATASET.name}\)"):
        known.score_table(readings(5, 3).drop_columns("flow"))


def test_a_model_says_which_columns_of_a_changed_file_it_cannot_read() -> None:
    """Before it serves, not at night. Bounds, new columns and another role are nothing to it."""
    known = Detector.train(DATASET, readings(200, 1), readings(50, 2), records_per_day=100)
    columns = CONTRACT["columns"]

    def misfit(**changed: Any) -> str:
        now = {name: column for name, column in {**columns, **changed}.items() if column}
        return known.misfit(Dataset.model_validate(CONTRACT | {"columns": now}))

    new = {"type": "float", "role": "numeric"}
    assert misfit(flow=columns["flow"] | {"min": -1e6, "role": "ignored"}, new=new) == ""
    assert misfit(flow=None, new=new) == "it reads flow, which the dataset's file leaves out"
    assert misfit(flow={"type": "string", "role": "categorical"}) == (
        "it learned flow as another type than string"
    )


def test_counts_keep_their_own_values_up_to_the_reasons(tmp_path: Path) -> None:
    """A noise model of counts is told 0, 1, 2, not standard deviations, and what it expects is said as a
    count.
    """
    raw = CONTRACT | {
        "columns": {
            "level": {"type": "float", "role": "numeric"},
            "calls": {"type": "int", "role": "numeric"},
        },
        "train": {
            "recipe": {"steps": 400, "n_members": 2, "trim": 0.0, "column_noise": {"calls": "poisson"}}
        },
    }
    dataset = Dataset.model_validate(raw)
    random = np.random.default_rng(5)

    def table(n: int) -> pa.Table:
        level = random.normal(0, 1, n)
        return pa.table({"level": level, "calls": random.poisson(np.exp(1 + 0.5 * level))})

    detector = Detector.train(dataset, table(2000), table(500), records_per_day=100)
    detector.save(tmp_path)
    odd = pa.table({"level": [0.0, 0.0], "calls": [3, 40]})
    loaded = Detector.load(tmp_path)
    quiet, loud = loaded.score_table(odd)["anomaly_score"].to_pylist()
    assert loud > quiet + 20
    (reason, *_) = loaded.explain(odd, dataset)[1].reasons
    assert (reason["column"], reason["observed"]) == ("calls", "40")
    assert 1 <= int(reason["expected"]) <= 8
    assert reason["low"] >= 0
    assert (reason["low"] % 1, reason["high"] % 1) == (0, 0)


def test_what_is_as_expected_is_no_further_reason() -> None:
    """'site b, expected b (70 %)' puzzles who reads it, however much the score would fall; the first reason
    stands whatever it says. Of a number as many digits are told as make four of the larger end of its
    interval.
    """
    features = Features.fit(DATASET, readings(2000, 1))
    sites, numbers = features.categorical["site"], features.numeric
    digits = {
        name: 3 - math.floor(math.log10(abs(numbers[name].mean) + 1.96 * numbers[name].std))
        for name in ("level", "flow")
    }
    level, flow = (f"{round(numbers[name].mean, digits[name]):.6g}" for name in ("level", "flow"))
    row = pa.table({"level": [float(level)], "flow": [9.0], "site": ["b"]})

    def reasons(first: int, likely: str) -> list[tuple[str, str]]:
        share = torch.full((1, 3), 0.2)
        share[0, first] = 0.6
        code = torch.tensor([[sites.index(likely)]])
        expected = Expected(torch.zeros(1, 2), torch.ones(1, 2), code, torch.full((1, 1), 0.7))
        found = Attribution(share, share, torch.zeros(1), share, expected)
        (one,) = explanations(DATASET, features, row, features.records(row), found, gaussian(2))
        return [(reason["column"], reason["expected"]) for reason in one.reasons]

    assert reasons(1, "a") == [("flow", flow), ("site", "a (70%)")]
    assert reasons(1, "b") == [("flow", flow)]
    assert reasons(2, "b") == [("site", "b (70%)"), ("flow", flow)]


def test_the_interval_of_a_whole_number_holds_the_whole_numbers_in_it() -> None:
    """'items 2, expected 1 (1 to 2)' is no reason: rounded outwards, an interval that ends at 1.6 held it."""
    with_count = readings(2000, 1).append_column("count", pa.array([1] * 1000 + [3] * 1000))
    columns = CONTRACT["columns"] | {"count": {"type": "int", "role": "numeric"}}
    dataset = Dataset.model_validate(CONTRACT | {"columns": columns})
    features = Features.fit(dataset, with_count)
    at = features.layout.columns.index("count")
    row = with_count.slice(0, 1)
    mean, std = torch.zeros(1, 3), torch.full((1, 3), 0.3)
    mean[0, at] = (1.05 - features.numeric["count"].mean) / features.numeric["count"].std
    share = torch.zeros(1, 4)
    share[0, at] = 1.0
    expected = Expected(mean, std, torch.zeros(1, 1, dtype=torch.long), torch.full((1, 1), 0.7))
    found = Attribution(share, share, torch.zeros(1), share, expected)
    (one,) = explanations(dataset, features, row, features.records(row), found, gaussian(3))
    (reason,) = one.reasons
    assert (reason["expected"], reason["low"], reason["high"]) == ("1", 1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "at", "told"),
    [
        ([-0.001, 0.0, 0.001, 0.002], -1.4e-5, ("0", -0.001, 0.001)),
        ([-0.001, 0.0, 0.001, 0.002], 0.00149, ("0.001", 0.0, 0.002)),
        ([0.1, 0.12, 4.57, 9.99], 4.5678, ("4.57", 4.57, 4.57)),
    ],
)
def test_what_is_expected_of_a_number_in_steps_is_one_of_them(
    values: list[float], at: float, told: tuple[str, float, float]
) -> None:
    """'expected -1.428e-05' of what comes in thousandths is 0; and so are the ends of the interval."""
    stepped = readings(2000, 1).append_column("stepped", pa.array(values * 500))
    columns = CONTRACT["columns"] | {"stepped": {"type": "float", "role": "numeric"}}
    dataset = Dataset.model_validate(CONTRACT | {"columns": columns})
    features = Features.fit(dataset, stepped)
    number, place = features.numeric["stepped"], features.layout.columns.index("stepped")
    row = stepped.slice(0, 1)
    mean, std = torch.zeros(1, 3), torch.full((1, 3), 0.001 / number.std if at < 1 else 1e-4)
    mean[0, place] = float(number.standardise(np.array([at]))[0])
    share = torch.zeros(1, 4)
    share[0, place] = 1.0
    expected = Expected(mean, std, torch.zeros(1, 1, dtype=torch.long), torch.full((1, 1), 0.7))
    found = Attribution(share, share, torch.zeros(1), share, expected)
    (one,) = explanations(dataset, features, row, features.records(row), found, gaussian(3))
    (reason,) = one.reasons
    assert (reason["expected"], reason["low"], reason["high"]) == told


def test_a_detector_of_before_there_were_references_scores_as_it_did(tmp_path: Path) -> None:
    """An update must not stop the night; what cannot be measured is said elsewhere."""
    known = Detector.train(DATASET, readings(2000, 1), readings(500, 2), records_per_day=100)
    assert known.reference is not None
    assert known.refit(DATASET, readings(2000, 1), readings(500, 2)).reference == known.reference
    known.save(tmp_path)
    assert Detector.load(tmp_path).reference == known.reference
    assert Detector.load(tmp_path).intervals == known.intervals
    weights = load_file(tmp_path / "weights.safetensors")
    del weights["intervals"]
    save_file(weights, tmp_path / "weights.safetensors")
    file = tmp_path / "detector.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    del state["reference"]
    file.write_text(json.dumps(state), encoding="utf-8")
    older, records = Detector.load(tmp_path), readings(100, 3)
    assert older.reference is None
    assert older.intervals == gaussian(2)
    assert older.score_table(records).equals(known.score_table(records))


def with_recipe(**recipe: Any) -> Dataset:
    train = CONTRACT["train"] | {"recipe": {"steps": 50, "n_members": 2, "width": 8, **recipe}}  # type: ignore[operator]
    return Dataset.model_validate(CONTRACT | {"train": train})


def test_values_that_the_recipe_does_not_take_are_said_with_their_place() -> None:
    """All at once, before any record is looked at."""
    dataset = with_recipe(posterior="round", kl_weight=-1, steps=10.5, column_noise=None)
    with pytest.raises(ConfigError, match=r"sensors: .*:\n  train\.recipe: column_noise must be a mapping"):
        recipe_of(dataset)
    dataset = with_recipe(posterior="round", kl_weight=-1, steps=10.5)
    with pytest.raises(ConfigError) as caught:
        recipe_of(dataset)
    assert str(caught.value).splitlines()[1:] == [
        "  train.recipe: steps must be a whole number in [1, inf), is 10.5",
        "  train.recipe: kl_weight must be a number in [0, inf), is -1",
        "  train.recipe: posterior must be one of diagonal, full, is 'round'",
    ]


def test_a_training_that_diverges_says_what_to_change() -> None:
    """It would diverge again: no retry, and no traceback."""
    dataset = with_recipe(learning_rate=1e30)
    said = r"sensors: the training gave no model: .*lower learning_rate in train\.recipe"
    with pytest.raises(ModelUnusable, match=said) as caught:
        Detector.train(dataset, readings(500, 1), readings(100, 2), records_per_day=100)
    assert not caught.value.retry_can_help


def test_settings_that_do_not_go_together_and_records_that_teach_nothing_are_said() -> None:
    """What vae_core refuses is no traceback of ours."""
    together = with_recipe(reconstruction="vae_gan", noise="student_t")
    with pytest.raises(
        ModelUnusable, match=r"sensors: .*reconstruction 'vae_gan' .*look at the columns and train.recipe"
    ):
        Detector.train(together, readings(500, 1), readings(100, 2), records_per_day=100)
    silent, later = (
        pa.table({
            name: pa.nulls(n, column.type)
            for name, column in zip(all_.column_names, all_.columns, strict=True)
        })
        for n, all_ in ((500, readings(500, 1)), (100, readings(100, 2)))
    )
    with pytest.raises(ModelUnusable, match="every cell of all 500 records is missing"):
        Detector.train(with_recipe(), silent, later, records_per_day=100)
