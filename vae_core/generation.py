"""What a model is good for beside finding anomalies: new records, imputed cells, latents to look at.

Belongs here: draws from p(x), p(missing | observed) and q(z|x) of a fitted model. Does not: what is expected
of an observed cell, its reconstruction, which ``expect`` has for every record.
"""

# M members, B records, Z latents, K draws of the latents, D draws of a record, N numeric columns, T codes of
# a column

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.inference import infer
from vae_core.likelihoods import ColumnLikelihood
from vae_core.model import VAE
from vae_core.posteriors import FullGaussian
from vae_core.records import MISSING, Records
from vae_core.slices import in_slices, slice_size
from vae_core.threads import one_thread_per_kernel

_NODES = 256  # draws of the latents, per member, that represent p(z | observed cells)
_FROM_PRIOR = 32  # how many of them are drawn from the prior, which bounds the weights


@dataclass(frozen=True, eq=False)
class Latents:
    """Where records lie in latent space. mean, std: (n_members, n_records, n_latents).

    Members do not share axes: plot one member's.
    """

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, eq=False)
class Imputed:
    """Records whose missing cells were filled in; observed cells are unchanged, to the bit.

    records: missing numbers at their conditional mean, missing categories at the likeliest code.
    std: (n_records, n_numeric) conditional standard deviation in standardised units; 0 where observed.
    probabilities: for each categorical column (n_records, n_codes), given the observed cells; 1 at an
        observed code.
    draws: complete tables from p(missing | observed), for multiple imputation.
    Cells of columns that training never saw stay missing, their std and probabilities NaN.
    """

    records: Records
    std: Tensor
    probabilities: tuple[Tensor, ...]
    draws: tuple[Records, ...]


def encode(vae: VAE, records: Records) -> Latents:
    """Return posterior means and standard deviations, for plots. A record's do not depend on the others."""
    vae.layout.check(records)
    shape = vae.recipe.n_members, len(records), vae.recipe.latents_for(vae.layout)
    latents = Latents(records.numeric.new_empty(shape), records.numeric.new_empty(shape))

    def write(part: Records, rows: slice) -> None:
        posterior = vae.encode(part)
        latents.mean[:, rows] = posterior.mean[:, : rows.stop - rows.start]
        latents.std[:, rows] = posterior.variance[:, : rows.stop - rows.start].sqrt()

    in_slices(vae, records, write)
    return latents


@torch.no_grad()
def sample(vae: VAE, n_records: int, *, context: Tensor | None = None, seed: int) -> Records:
    """Return new records: for each a random member, z from the prior, x from p(x|z).

    context: (n_records, n_context) float32, needed where the layout has context columns. The same seed gives
    the same records on one kind of device. Columns that training never saw come out missing. Where the KL
    weighed little in training (kl_weight far below 1), latents are not distributed like the prior, and
    samples are unlike the records.
    """
    context = _checked_context(vae, n_records, context)
    generator = torch.Generator(vae.device).manual_seed(seed)
    n_members = vae.recipe.n_members
    parts = []
    with one_thread_per_kernel():
        for part in torch.split(context.to(vae.device), slice_size(vae)):
            latents = vae.prior.sample(len(part), generator)
            member = torch.randint(n_members, (len(part),), generator=generator, device=vae.device)
            parts.append(_draw(vae, latents, member, part, generator))
    return Records(
        torch.cat([part.numeric for part in parts]),
        torch.cat([part.categorical for part in parts]),
        torch.cat([part.context for part in parts]),
    )


def _checked_context(vae: VAE, n_records: int, context: Tensor | None) -> Tensor:
    names = vae.layout.context
    if n_records < 0:
        raise ValueError(f"n_records must be at least 0, is {n_records}")
    if context is None:
        if names:
            raise ValueError(
                f"this layout has context columns: pass {', '.join(names)} for each of the {n_records} records, "
                f"as a tensor ({n_records}, {len(names)})"
            )
        return torch.zeros(n_records, 0)
    if context.shape != (n_records, len(names)) or context.dtype != torch.float32:
        raise ValueError(
            f"context must be float32 of shape {(n_records, len(names))}, is {context.dtype} of {tuple(context.shape)}"
        )
    return context


def _draw(vae: VAE, latents: Tensor, member: Tensor, context: Tensor, generator: torch.Generator) -> Records:
    """Return one draw of x from p(x|z) of a member (B,) for each record.

    latents: (M, B, Z), or (B, Z) for all members alike.
    """
    n, layout = len(context), vae.layout
    blank = _blank(vae, context)
    likelihood = vae.decode(latents.expand(vae.recipe.n_members, -1, -1), blank)
    rows = torch.arange(n, device=latents.device)
    numeric = likelihood.numeric.sample(generator)[member, rows]
    codes = blank.categorical
    for column in range(codes.shape[1]):
        chance = likelihood.categorical.probabilities(column)[member, rows]
        codes[:, column] = torch.multinomial(chance, 1, generator=generator)[:, 0]
    numbers, categories = vae.learned.tensor_split([len(layout.numeric)])
    return Records(numeric.masked_fill(~numbers, math.nan), codes.masked_fill(~categories, MISSING), context)


def _blank(vae: VAE, context: Tensor) -> Records:
    """Return records of missing cells alone, with this context (B, n_context)."""
    n, layout = len(context), vae.layout
    codes = torch.full((n, len(layout.categorical)), MISSING, device=context.device)
    return Records(context.new_full((n, len(layout.numeric)), math.nan), codes, context)


@torch.no_grad()
def impute(vae: VAE, records: Records, *, draws: int = 5, seed: int) -> Imputed:
    """Fill missing cells from the others of their record: expectation, uncertainty, and draws.

    Every member answers E[x_missing | x_observed] by self-normalised importance sampling (Mattei & Frellsen
    2019, eq. 12), and the members are averaged as in ``scoring.Expected``. Seven in eight latents are
    proposed by the Gaussian nearest to p(z | x_observed) (inference.py), one in eight by the prior; each is
    weighted by p(x_observed, z) over the density of that mixture. Where the decoder is linear and its noise
    Gaussian, that Gaussian is the posterior itself. Otherwise the answer tends to the model's own conditional
    as the number of proposals (256 per member) grows, except for a hierarchical prior, for whose density a
    bound stands in. Draws are resampled proposals.

    Random numbers come from the seed and the record's own observed cells: a record's result does not depend
    on the others, and equal records get equal draws. Costs some milliseconds for each record with a missing
    cell.
    """
    vae.layout.check(records)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, is {draws}")
    rows = torch.nonzero((records.observed == 0).any(dim=1))[:, 0]
    known = vae.without_unlearned(records[rows].to(vae.device))
    proposal = _proposals(vae, known)
    with one_thread_per_kernel():
        answers = [
            _answer(vae, known[i], FullGaussian(*(x[:, i : i + 1] for x in proposal)), draws, seed)
            for i in range(len(rows))
        ]
    return _assembled(vae, records, rows, answers, draws)


def _proposals(vae: VAE, records: Records) -> tuple[Tensor, Tensor]:
    """Return the Gaussian nearest to p(z | observed cells), on the model's device.

    Its mean is (M, B, Z), its factor (M, B, Z, Z).
    """
    n_members, n_latents = vae.recipe.n_members, vae.recipe.latents_for(vae.layout)
    mean = torch.empty(n_members, len(records), n_latents, device=vae.device)
    factor = torch.empty(*mean.shape, n_latents, device=vae.device)

    def write(part: Records, rows: slice) -> None:
        posterior = infer(part, vae.decode, vae.encode(part).mean, log_prior=vae.prior.log_prob)
        mean[:, rows] = posterior.mean[:, : rows.stop - rows.start]
        factor[:, rows] = posterior.factor[:, : rows.stop - rows.start]

    in_slices(vae, records, write)
    return mean, factor


@dataclass(frozen=True, eq=False)
class _Answer:
    """Every cell of one record as if it were missing.

    mean, std: (1, N). chances: (1, T) of each column. draws: D records.
    """

    mean: Tensor
    std: Tensor
    chances: tuple[Tensor, ...]
    draws: Records

    @property
    def codes(self) -> Tensor:
        """The likeliest codes, (1, n_categorical)."""
        likeliest = [chance.argmax(dim=-1) for chance in self.chances]
        return torch.stack(likeliest, dim=-1) if likeliest else self.draws.categorical[:1]


def _answer(vae: VAE, record: Records, proposal: FullGaussian, draws: int, seed: int) -> _Answer:
    generator = torch.Generator(vae.device).manual_seed(_own_seed(record, seed))
    many = record[torch.zeros(_NODES, dtype=torch.int64)]
    latents_MKZ = _proposed(vae, proposal, generator)
    likelihood = vae.decode(latents_MKZ, many)
    log_joint_MK = likelihood.log_prob(many).sum(dim=-1) + vae.prior.log_prob(latents_MKZ)
    weight_MK = (log_joint_MK - _log_proposal(vae, proposal, latents_MKZ)).softmax(dim=-1)
    mean, std, chances = _moments(likelihood, weight_MK / len(weight_MK))
    member = torch.randint(len(weight_MK), (draws,), generator=generator, device=vae.device)
    node = torch.multinomial(weight_MK[member], 1, generator=generator)[:, 0]
    context = record.context.expand(draws, -1)
    return _Answer(mean, std, chances, _draw(vae, latents_MKZ[member, node], member, context, generator))


def _own_seed(record: Records, seed: int) -> int:
    """Derive a seed from a record's observed cells and the caller's seed."""
    cells = [record.values + 0.0, record.observed, record.categorical, record.context_values + 0.0]  # no -0.0
    content = repr((seed, [cell.tolist() for cell in cells])).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


def _proposed(vae: VAE, proposal: FullGaussian, generator: torch.Generator) -> Tensor:
    """Return latents (M, K, Z) in mirrored pairs, the last few from the prior."""
    mean = proposal.mean
    half = mean.new_empty(len(mean), _NODES // 2, mean.shape[-1]).normal_(generator=generator)
    noise = torch.stack([half, -half], dim=2).flatten(1, 2)
    return torch.cat([proposal.draw(noise[:, _FROM_PRIOR:]), vae.prior.sample(_FROM_PRIOR, generator)], dim=1)


def _log_proposal(vae: VAE, proposal: FullGaussian, latents: Tensor) -> Tensor:
    """Return the log-density (M, K), nats, of the mixture that the latents (M, K, Z) were drawn from."""
    away = (latents - proposal.mean)[..., None]
    noise = torch.linalg.solve_triangular(proposal.factor, away, upper=False)[..., 0]
    share = _FROM_PRIOR / _NODES
    return torch.logaddexp(
        proposal.log_density(noise) + math.log1p(-share), vae.prior.log_prob(latents) + math.log(share)
    )


def _moments(likelihood: ColumnLikelihood, weight: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return means and standard deviations (1, N) of numbers, and probabilities (1, T) of categories.

    weight: (M, K), adding up to 1.
    """

    def expectation(values: Tensor) -> Tensor:
        return (weight[..., None] * values).sum(dim=(0, 1))[None]

    numeric, categorical = likelihood.numeric, likelihood.categorical
    mean = expectation(numeric.mean)
    variance = expectation((numeric.mean - mean).square() + numeric.variance)
    return (
        mean,
        variance.sqrt(),
        tuple(expectation(categorical.probabilities(c)) for c in range(len(categorical.logits))),
    )


def _assembled(vae: VAE, records: Records, rows: Tensor, answers: list[_Answer], draws: int) -> Imputed:
    """Put the answers where cells are missing. rows: (n_incomplete,) of the records they belong to."""
    numbers, categories = (~vae.learned.to(records.device)).tensor_split([len(vae.layout.numeric)])
    number_gaps, code_gaps = records.numeric.isnan(), records.categorical == MISSING

    def put(cells: Tensor, gaps: Tensor, answered: list[Tensor], unknown: Tensor, mark: float) -> Tensor:
        filled = cells.clone()
        if answered:
            fill = torch.cat(answered).to(cells.device).masked_fill(unknown, mark)
            filled[rows] = torch.where(gaps[rows], fill, cells[rows])
        return filled

    def table(numeric: list[Tensor], codes: list[Tensor]) -> Records:
        return Records(
            put(records.numeric, number_gaps, numeric, numbers, math.nan),
            put(records.categorical, code_gaps, codes, categories, MISSING),
            records.context,
        )

    chances = []
    for c, n_codes in enumerate(vae.layout.n_codes):
        each = torch.arange(n_codes, device=records.device)
        observed = (records.categorical[:, c : c + 1] == each).to(records.numeric.dtype)
        chances.append(
            put(observed, code_gaps[:, c : c + 1], [a.chances[c] for a in answers], categories[c], math.nan)
        )
    drawn = [a.draws for a in answers]
    return Imputed(
        records=table([a.mean for a in answers], [a.codes for a in answers]),
        std=put(torch.zeros_like(records.numeric), number_gaps, [a.std for a in answers], numbers, math.nan),
        probabilities=tuple(chances),
        draws=tuple(
            table([r.numeric[d : d + 1] for r in drawn], [r.categorical[d : d + 1] for r in drawn])
            for d in range(draws)
        ),
    )
