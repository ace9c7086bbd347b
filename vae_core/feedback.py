"""How much each term of the score counts, from what people said of records.

Belongs here: the weights, as the most probable ones given verdicts. Does not: the terms (scoring.py), or
training on verdicts (known.py).

After Das et al. (2016) and Siddiqui et al. (2018): a score that is a sum of terms is taught by weights near
one. The model is a logistic regression that starts from the score itself: if anomalies were spread uniformly,
a record's log odds of being one would be −log p(x) plus a constant, that is, weights of one.
"""

# N judged records, T terms of the score: the columns', and the KL divergence

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vae_core.known import Known
from vae_core.model import VAE
from vae_core.scoring import score
from vae_core.threads import one_thread_per_kernel

WRONG = 0.05  # share of verdicts assumed wrong, whatever the record
_SPREAD_OF_SCALE = 1.0  # of log β around 0
_FARTHEST = 1e3  # nats at which terms are clipped
_LARGEST_LOG = 5.0  # of weights and scale, either way; keeps the search from overflowing
_MOST_STEPS = 500


def weigh(vae: VAE, known: Known) -> None:
    """Set the weights of the score's terms by known records.

    They are one where all are of one kind or ``weight_spread`` is 0. Records outside the training set say
    most: their terms are what a new record's will be.
    """
    vae.weights.fill_(1)
    spread = vae.recipe.weight_spread
    if not (known.anomalies and known.normals and spread):
        return
    found = [score(vae, part.to(vae.device)) for part in (known.anomalies, known.normals)]
    terms = torch.cat([torch.cat([x.column_terms, x.kl_divergence[:, None]], dim=1) for x in found])
    is_anomaly = torch.arange(len(terms)) < len(known.anomalies)
    with one_thread_per_kernel():  # the same bits on every machine of a kind
        vae.weights.copy_(most_probable_weights(terms.cpu(), is_anomaly, spread))


def most_probable_weights(terms: Tensor, is_anomaly: Tensor, spread: float) -> Tensor:
    """Return the weights of ``most_probable``, (T,) float64, positive."""
    return most_probable(terms, is_anomaly, spread)[0].exp()


def most_probable(terms: Tensor, is_anomaly: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return log w (T,), b () and log β (), float64, at a maximum of ``log_posterior``.

    It is the one uphill from w = 1 and the median score. terms: (N, T) nats. is_anomaly: (N,) bool, both
    kinds in it. spread: standard deviation of log w.
    """
    terms = terms.double().clamp(-_FARTHEST, _FARTHEST)
    totals = terms.sum(dim=1)
    middle, width = totals.median(), totals.std().clamp_min(1)
    place = torch.zeros(terms.shape[1] + 2, dtype=torch.float64)  # log w in spreads, b in widths, log β
    place[-1] = 1 - width.log()
    place.requires_grad_()
    search = torch.optim.LBFGS(
        [place],
        max_iter=_MOST_STEPS,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def found() -> tuple[Tensor, Tensor, Tensor]:
        return _bounded(place[:-2] * spread), middle + width * place[-2], _bounded(place[-1])

    def loss() -> Tensor:
        search.zero_grad()
        value = -log_posterior(*found(), terms, is_anomaly, spread)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    log_weights, border, log_scale = (x.detach() for x in found())
    return log_weights, border, log_scale


def _bounded(logs: Tensor) -> Tensor:
    """Bound to ±_LARGEST_LOG with a slope everywhere, so that a search that overshot can come back."""
    return _LARGEST_LOG * torch.tanh(logs / _LARGEST_LOG)


def log_posterior(
    log_weights: Tensor, border: Tensor, log_scale: Tensor, terms: Tensor, is_anomaly: Tensor, spread: float
) -> Tensor:
    """Return the log posterior () up to a constant.

    A verdict is right with probability 1 − WRONG, and then says anomaly with odds exp(β (t · w − b)). Each
    log w ~ N(0, spread²); log β ~ N(0, 1); b has a flat prior.
    """
    odds = log_scale.exp() * (terms @ log_weights.exp() - border)
    signed = torch.where(is_anomaly, odds, -odds)
    said = functional.logsigmoid(signed).exp() * (1 - 2 * WRONG) + WRONG
    prior = (log_weights / spread).square().sum() + (log_scale / _SPREAD_OF_SCALE).square()
    return said.log().sum() - prior / 2
