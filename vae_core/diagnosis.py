"""Whether training worked: latents that carry nothing, variances at their bounds, numbers not standardised.

Belongs here: signs of a failed training, in words. Does not: losses that are not finite, which training
itself notices and survives (run.py), or whether a model is better than another (the caller's).
"""

# M members, B records, Z latents, N numeric columns

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.model import VAE
from vae_core.noise import ALLOWED, UNSCALED, Mixed, Noise, StudentT
from vae_core.recipe import Recipe
from vae_core.records import Records
from vae_core.slices import in_slices

_ACTIVE = 0.01  # variance over the records of a latent's posterior mean (Burda et al. 2016, section 5.2)
_WIDE = 50.0  # variance of a column, in standardised units, at which a decoder has given up on it
_LEARN_SCALE = ("gaussian", "gaussian_shared_sigma", "gaussian_column_sigma", "student_t")
_NARROW = 1e-4  # variance of a posterior that has become a point
_MOST_OUTSIDE = 0.05  # tolerated share of a column's values outside its noise model's range: anomalies
_FAR = 10.0  # standardised numbers lie nearer 0, all but anomalies
_FLAT = 0.3  # of sigma_floor: a column that varies less tells the model next to nothing
_SAME = 1e-4  # standard deviation of a column that is constant but for rounding
_MOST = 16_384  # records looked at
_FEWEST = 50  # fewer say nothing


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    active: of each member, how many latents vary with the records. notes: what is wrong, in words.
    """

    active: tuple[int, ...]
    n_latents: int
    notes: tuple[str, ...]


def diagnose(vae: VAE, records: Records) -> Diagnosis:
    """Look at the latents and variances of the first records."""
    records = records[slice(0, _MOST)]
    n_latents = vae.recipe.latents_for(vae.layout)
    shape = vae.recipe.n_members, len(records)
    mean, spread = (torch.empty(*shape, n_latents) for _ in range(2))
    variance = torch.empty(*shape, len(vae.layout.numeric))

    def look(part: Records, rows: slice) -> None:
        n_rows = rows.stop - rows.start
        posterior = vae.encode(part)
        mean[:, rows], spread[:, rows] = posterior.mean[:, :n_rows], posterior.variance[:, :n_rows]
        variance[:, rows] = _learned_variance(vae.decode(posterior.mean, part).numeric)[:, :n_rows]

    in_slices(vae, records, look)
    active = tuple((mean.var(dim=1, correction=0) > _ACTIVE).sum(dim=1).tolist())
    notes = _notes(vae, active, n_latents, spread, variance) if len(records) >= _FEWEST else []
    notes += _misfits(vae, records) + _not_standardised(vae, records)
    return Diagnosis(active, n_latents, tuple(notes))


def _learned_variance(numeric: Noise) -> Tensor:
    """Return the variance (M, B, N) that the decoder gives a number.

    Of a Student t it is the squared scale: its variance is large where tails are heavy, too.
    """
    if isinstance(numeric, StudentT):
        return numeric.squared_scale
    variance = numeric.variance
    if isinstance(numeric, Mixed):
        for columns, noise in numeric.parts:
            variance[..., columns] = _learned_variance(noise)
    return variance


def _notes(vae: VAE, active: tuple[int, ...], n_latents: int, spread: Tensor, variance: Tensor) -> list[str]:
    notes = []
    if not all(active) and len(vae.layout.columns) > 1:
        notes.append(_collapse(active, n_latents, vae.recipe))
    points = float((spread < _NARROW).float().mean())
    # many columns make an exact posterior narrow without any fault
    if vae.recipe.regulariser == "kl" and vae.recipe.encoder != "exact" and points > 0.5:
        tries = "raise kl_weight or lower n_latents" if vae.recipe.weighs_the_kl else "lower n_latents"
        notes.append(f"{points:.0%} of the posteriors have shrunk to points: latents copy records; {tries}")
    learned = vae.learned[: variance.shape[2]].cpu()
    scaled = torch.tensor([name in _LEARN_SCALE for name in vae.noise.names], dtype=torch.bool)
    # where the steps between a column's values are as wide as that, training did not run off
    stepped = (vae.noise.lowest_variance.amax(dim=(0, 1)) > _WIDE).cpu()
    wide_N = ((variance > _WIDE).float().mean(dim=(0, 1)) > 0.5) & learned & scaled & ~stepped
    if wide_N.any():
        names = [name for name, wide in zip(vae.layout.numeric, wide_N.tolist(), strict=True) if wide]
        notes.append(
            f"the decoder's variance of {', '.join(names)} ran off to the bound: it accepts any value there"
        )
    return notes


def _misfits(vae: VAE, records: Records) -> list[str]:
    """Return a note on each column whose numbers are outside its noise model's range."""
    notes = []
    for name, noise, values in zip(
        vae.layout.numeric, vae.noise.names, records.numeric.unbind(dim=1), strict=True
    ):
        if noise not in ALLOWED:
            continue
        low, high = ALLOWED[noise]
        outside = ((values < low) | (values > high)).sum() / (~values.isnan()).sum().clamp(min=1)
        if outside > _MOST_OUTSIDE:
            bounds = f"from {low:g} to {high:g}" if high < torch.inf else f"from {low:g}"
            notes.append(
                f"{float(outside):.0%} of the values of {name} are outside the range of noise model {noise} ({bounds} in their "
                f"own units): choose another noise model"
            )
    return notes


def _not_standardised(vae: VAE, records: Records) -> list[str]:
    """Return notes on numbers and context whose scale is not the one that the model is made for."""
    far, flat = [], []
    noises = (*vae.noise.names, *("none" for _ in vae.layout.context))
    columns = (*records.numeric.unbind(dim=1), *records.context.unbind(dim=1))
    for name, noise, column in zip((*vae.layout.numeric, *vae.layout.context), noises, columns, strict=True):
        seen = column[~column.isnan()]
        if noise in UNSCALED or not len(seen):
            continue
        if seen.abs().median() > _FAR:
            far.append(name)
        elif noise in _LEARN_SCALE and _SAME < float(seen.std(correction=0)) < _FLAT * vae.recipe.sigma_floor:
            flat.append(name)
    to_do = "standardise them: subtract the column's mean and divide by its standard deviation"
    notes = []
    if far:
        notes.append(f"half or more of the values of {', '.join(far)} lie beyond ±{_FAR:g}: {to_do}")
    if flat:
        floor = f"sigma_floor, {vae.recipe.sigma_floor:g}"
        notes.append(
            f"the values of {', '.join(flat)} vary by far less than {floor}, so few stand out: {to_do}"
        )
    return notes


def _collapse(active: tuple[int, ...], n_latents: int, recipe: Recipe) -> str:
    tries = "try another seed or more steps"
    if recipe.weighs_the_kl:
        tries = "try kl_warm_up, free_nats or a lower kl_weight"
    if any(active):
        return (
            f"posterior collapse: {active.count(0)} of {len(active)} members ignore the records, none of their {n_latents} "
            f"latents varies with them; {tries}"
        )
    return (
        f"posterior collapse: all members ignore the records, none of their {n_latents} latents varies with them; "
        f"{tries}, unless the columns have nothing in common"
    )
