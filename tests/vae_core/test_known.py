"""Verdicts in training: what they are worth on records that nobody judged, and that they never do harm."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from vae_core import Known, Layout, Recipe, Records, fit, score

LAYOUT = Layout(tuple("abcdef"))
RECIPE = Recipe(steps=500, n_members=2, known_margin=20.0, weight_spread=0.0)


def records(x: Tensor) -> Records:
    return Records(x.float(), torch.zeros(len(x), 0, dtype=torch.int64), torch.zeros(len(x), 0))


def table(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Records (n, 6) of which a tenth differ from the others in no more than three signs and some noise, and
    which (n,).
    """
    generator = torch.Generator().manual_seed(seed)
    cause = torch.randn(n, 1, generator=generator)
    x = cause * torch.tensor([1.0, 1, 1, -1, -1, -1]) + 0.7 * torch.randn(n, 6, generator=generator)
    odd = torch.rand(n, generator=generator) < 0.1
    x[odd] += torch.tensor([0.9, -0.9, 0.9, 0.9, -0.9, 0.9])
    return x, odd


def average_precision(known: Known, learned: Tensor, seed: int = 0) -> float:
    new, odd = table(3000, 2)
    vae = fit(LAYOUT, records(learned), RECIPE, seed=seed, known=known)
    return float(average_precision_score(odd.numpy(), score(vae, records(new)).anomaly_score.numpy()))


def judged(n: int) -> tuple[Known, Tensor]:
    """n verdicts, half of them on anomalies, and the records to learn from without those."""
    x, odd = table(3000, 1)
    anomalies, normals = torch.nonzero(odd)[: n // 2, 0], torch.nonzero(~odd)[: n - n // 2, 0]
    rest = torch.ones(len(x), dtype=torch.bool)
    rest[anomalies] = False
    return Known(records(x[anomalies]), records(x[normals])), x[rest]


def test_average_precision_on_new_records_rises_with_the_number_of_verdicts() -> None:
    """20, 50 and 200 verdicts; between neighbours 0.03 is allowed for noise (the deviation over seeds is
    0.01).
    """
    unlabelled = average_precision(Known(), table(3000, 1)[0])
    after = [average_precision(*judged(n)) for n in (20, 50, 200)]
    assert unlabelled < after[0] + 0.03 < after[1] + 0.06 < after[2] + 0.09
    assert after[2] > unlabelled + 0.1


@pytest.mark.parametrize("kind", ["normals", "anomalies of another kind", "one anomaly"])
def test_verdicts_that_say_little_do_no_harm(kind: str) -> None:
    """Not below the unlabelled model by more than 0.03, three times the deviation over seeds."""
    x, odd = table(3000, 1)
    known = {
        "normals": Known(normals=records(x[~odd][:200])),
        "anomalies of another kind": Known(
            anomalies=records(8 * torch.randn(20, 6, generator=torch.Generator().manual_seed(3)))
        ),
        "one anomaly": Known(anomalies=records(x[odd][:1])),
    }[kind]
    assert average_precision(known, x) > average_precision(Known(), x) - 0.03


def test_known_anomalies_end_the_margin_above_the_usual_loss() -> None:
    """And normals do not: in nats, at the posterior mean; half of the margin is asked for, as the push
    weakens near it.
    """
    known, learned = judged(100)
    vae = fit(LAYOUT, records(learned), RECIPE, seed=0, known=known)
    assert known.anomalies is not None
    assert known.normals is not None
    cost = {}
    for name, part in (("all", records(learned)), ("anomalies", known.anomalies), ("normals", known.normals)):
        scores = score(vae, part)
        cost[name] = float((scores.reconstruction + scores.kl_divergence).median())
    assert cost["anomalies"] > cost["all"] + RECIPE.known_margin / 2
    assert cost["normals"] < cost["all"] + 1


def test_the_same_verdicts_give_the_same_weights_and_none_change_nothing() -> None:
    """An empty set of verdicts takes no random number from the fit."""
    x, _ = table(300, 1)
    recipe = Recipe(steps=30, n_members=1, known_margin=20.0)
    known = Known(records(x[:3]), records(x[3:6]))
    fits = [fit(LAYOUT, records(x), recipe, seed=0, known=k) for k in (None, Known(), known, known)]
    states = [vae.state_dict()["decoder_outputs.weight"] for vae in fits]
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[2], states[3])
    assert not torch.equal(states[0], states[2])


def test_known_records_of_another_layout_are_refused() -> None:
    """Before an hour of training, not in its first step."""
    with pytest.raises(ValueError, match="5 columns, the layout has 6"):
        fit(LAYOUT, records(torch.randn(50, 6)), RECIPE, seed=0, known=Known(records(torch.randn(2, 5))))
