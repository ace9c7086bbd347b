"""The networks: an ensemble of small variational autoencoders computed as one.

Belongs here: encoder, decoder, their parameters, the fitted state that scoring needs, and the conversion of a
model to plain JSON and tensors and back. Does not: the loss (objectives.py), the loop (run.py), the score
(scoring.py).
"""

# M members, B records, I inputs, O outputs, H hidden units, Z latents, C categorical columns, T codes of all
# columns

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from vae_core.column_noise import NumericNoise
from vae_core.inference import infer
from vae_core.layers import CodeTable, MemberLinear
from vae_core.likelihoods import Categorical, ColumnLikelihood
from vae_core.linear import LinearGaussian
from vae_core.noise import UNSCALED
from vae_core.posteriors import POSTERIORS, FullGaussian, Posterior
from vae_core.ppca import exact_posterior
from vae_core.priors import PRIORS
from vae_core.recipe import Recipe
from vae_core.records import MISSING, Layout, Records
from vae_core.recurring import RecurringValues

_LOWEST_RATE = 1e-2  # of counts that training starts at
_STEPS = 10  # of the search for a record's latents without an encoder
_STEPS_TO_LEARN = 6


class VAE(nn.Module):
    """An ensemble of independent variational autoencoders over the columns of a layout.

    Each member is inputs -> width -> n_latents -> width -> columns, ReLU between, with a Gaussian posterior
    (posteriors.py) and two outputs for every number of every record, by default its mean and variance
    (noise.py). Where the encoder is exact it is n_latents -> columns alone (ppca.py). The prior is a module
    of its own (priors.py), and so is the linear model beside the networks (linear.py). ``indicated`` are the
    numeric columns (by position) whose absence is an input of its own; elsewhere a missing number looks like
    the mean, 0.

    The buffers hold what scoring needs to know of the training records. ``fit`` fills them, and with them
    ``state_dict`` is the whole model. ``scale``: (n_numeric,) robust squared residual. ``typical``:
    (n_columns,) mean score term, nats. ``typical_kl``: () nats. ``weights``: (n_columns + 1,) of the score's
    terms, the KL's last, see feedback.py. ``linear.*``: the linear model. ``recurring.*``: values that
    recur (recurring.py). ``learned``: (n_columns,) bool, False where training saw no value at all.
    """

    scale: Tensor
    typical: Tensor
    typical_kl: Tensor
    weights: Tensor
    learned: Tensor
    _indicated: Tensor

    def __init__(self, layout: Layout, recipe: Recipe, indicated: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.layout, self.recipe, self.indicated = layout, recipe, indicated
        n_numeric, n_codes, n_context = len(layout.numeric), layout.n_codes, len(layout.context)
        n_members, width, n_latents = recipe.n_members, recipe.width, recipe.latents_for(layout)
        if recipe.encoder == "network":
            self.encoder_inputs = MemberLinear(n_members, n_numeric + len(indicated) + n_context, width)
            self.encoder_codes = CodeTable(n_members, n_codes, width) if n_codes else None
            self.encoder_outputs = MemberLinear(
                n_members, width, POSTERIORS[recipe.posterior].n_outputs(n_latents)
            )
        is_linear, n_inputs = recipe.encoder == "exact", n_latents + n_context
        if is_linear and n_codes:
            names = ", ".join(name for name, _ in layout.categorical)
            raise ValueError(
                f"encoder exact takes numeric columns only, not categories ({names}): give these columns another role, "
                "or choose another encoder"
            )
        if not is_linear:
            self.decoder_inputs = MemberLinear(n_members, n_inputs, width)
        self.decoder_outputs = MemberLinear(
            n_members, n_inputs if is_linear else width, 2 * n_numeric + sum(n_codes)
        )
        self.noise = NumericNoise(layout, recipe)
        prior = recipe.prior if recipe.regulariser == "kl" else "normal"
        self.prior = PRIORS[prior](n_members, n_latents, recipe.n_components)
        self.linear = None
        if recipe.linear_records:
            modelled = tuple(name not in UNSCALED for name in self.noise.names)
            self.linear = LinearGaussian(modelled, n_context)
        self.recurring = RecurringValues()
        self.register_buffer("scale", torch.ones(n_numeric))
        self.register_buffer("typical", torch.zeros(len(layout.columns)))
        self.register_buffer("typical_kl", torch.zeros(()))
        self.register_buffer("weights", torch.ones(len(layout.columns) + 1))
        self.register_buffer("learned", torch.ones(len(layout.columns), dtype=torch.bool))
        self.register_buffer("_indicated", torch.tensor(indicated, dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def initialise(self, codes: Tensor, generator: torch.Generator) -> None:
        """Draw the weights; start each categorical head at the frequencies in codes.

        codes: (n_records, n_categorical).
        """
        for module in self.modules():
            if isinstance(module, MemberLinear):
                module.reset(generator)
        self.prior.reset(generator)
        first = 2 * len(self.layout.numeric)
        for column, n_codes in enumerate(self.layout.n_codes):
            seen = codes[:, column]
            # plus one, so that no code is impossible
            counts = seen[seen != MISSING].bincount(minlength=n_codes) + 1
            self.decoder_outputs.bias[..., first : first + n_codes] = (counts / counts.sum()).log()
            first += n_codes

    @torch.no_grad()
    def start_rates(self, numeric: Tensor) -> None:
        """Start each rate of counts at the mean of the column's values: one far from 1 would take all steps.

        numeric: (n_records, n_numeric), NaN where missing.
        """
        for column in self.noise.counts.nonzero()[:, 0].tolist():
            mean = numeric[:, column].clamp(min=0).nanmean().nan_to_num(nan=1.0)
            self.decoder_outputs.bias[..., column] = mean.clamp(min=_LOWEST_RATE).log()

    @property
    def device(self) -> torch.device:
        return self.scale.device

    def encode(self, records: Records) -> Posterior:
        """Return the posterior q(z|x) of each member: latents (n_members, n_records, n_latents).

        Without an encoder it is the Gaussian nearest to p(z|x), found by optimisation, or p(z|x) itself where
        the decoder is linear.
        """
        if self.recipe.encoder == "exact":
            return self._exact_posterior(records)
        if self.recipe.encoder == "none":
            n_latents = self.recipe.latents_for(self.layout)
            return infer(
                self.without_unlearned(records),
                self.decode,
                records.numeric.new_zeros(self.recipe.n_members, len(records), n_latents),
                log_prior=self.prior.log_prob,
                steps=_STEPS_TO_LEARN if self.training else _STEPS,
            )
        return self._posterior(self._encoder_hidden(records))

    def without_unlearned(self, records: Records) -> Records:
        """Blank the cells of columns that training never saw: nobody knows what they mean."""
        if self.learned.all():
            return records
        numbers, codes = (~self.learned).tensor_split([len(self.layout.numeric)])
        return Records(
            records.numeric.masked_fill(numbers, math.nan),
            records.categorical.masked_fill(codes, MISSING),
            records.context,
        )

    def decode(self, latents: Tensor, records: Records) -> ColumnLikelihood:
        """Return the likelihood p(x|z) of each member; of the records only the context is read.

        latents: (n_members, n_records, n_latents).
        """
        outputs = self.decoder_outputs(self._decoder_hidden(latents, records))
        n_numeric = len(self.layout.numeric)
        place, spread, *logits = outputs.split([n_numeric, n_numeric, *self.layout.n_codes], dim=-1)
        return ColumnLikelihood(
            self.noise(place, spread), Categorical(tuple(logits), self.recipe.category_floor)
        )

    def decode_categories_from_the_others(self, records: Records) -> Categorical:
        """Return p(x_c | x without c) of every categorical column.

        At the posterior mean of the record without that column.
        """
        logits: list[Tensor] = []
        first = 2 * len(self.layout.numeric)
        for latents, n_codes in zip(
            self._latents_without_each_category(records), self.layout.n_codes, strict=True
        ):
            hidden = self._decoder_hidden(latents, records)
            logits.append(self.decoder_outputs(hidden, slice(first, first + n_codes)))
            first += n_codes
        return Categorical(tuple(logits), self.recipe.category_floor)

    def _latents_without_each_category(self, records: Records) -> Iterator[Tensor]:
        if self.recipe.encoder != "network":
            for column in range(records.categorical.shape[1]):
                codes = records.categorical.clone()
                codes[:, column] = MISSING
                yield self.encode(Records(records.numeric, codes, records.context)).mean
        elif self.encoder_codes is not None:
            complete = self._encoder_hidden(records)
            for column in range(records.categorical.shape[1]):
                yield self._posterior(complete + self.encoder_codes.removal(records.categorical, column)).mean

    def encoder_input(self, records: Records) -> Tensor:
        """Return the encoder's inputs apart from categories, (n_records, n_inputs)."""
        inputs = [self.noise.seen(records.values)]
        if self.layout.context:
            inputs.append(records.context_values)
        if self.indicated:
            inputs.append(1 - records.observed[:, self._indicated])
        return torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]

    def _encoder_hidden(self, records: Records) -> Tensor:
        hidden: Tensor = self.encoder_inputs(self.encoder_input(records))
        return hidden if self.encoder_codes is None else hidden + self.encoder_codes(records.categorical)

    def _exact_posterior(self, records: Records) -> FullGaussian:
        """Compute the posterior in double precision, without the columns that training never saw.

        In single precision, many columns of little noise leave a latent few digits.
        """
        n_latents = self.recipe.latents_for(self.layout)
        origin = records.numeric.new_zeros(self.recipe.n_members, len(records), n_latents)
        there = self.decode(origin, records).numeric
        weight = self.decoder_outputs.weight[:, :n_latents, : len(self.layout.numeric)].mT
        observed = records.observed * self.learned
        parts = weight, there.variance[:, 0], (records.values - there.mean) * observed, observed
        posterior = exact_posterior(*(part.double() for part in parts))
        return FullGaussian(posterior.mean.to(origin.dtype), posterior.factor.to(origin.dtype))

    def _posterior(self, hidden: Tensor) -> Posterior:
        return POSTERIORS[self.recipe.posterior].of(self.encoder_outputs(hidden.relu_()))

    def decoder_input(self, latents: Tensor, records: Records) -> Tensor:
        """Return the decoder's inputs (n_members, n_records, n_inputs): latents, and the records' context."""
        if not self.layout.context:
            return latents
        return torch.cat([latents, records.context_values.expand(len(latents), -1, -1)], dim=-1)

    def _decoder_hidden(self, latents: Tensor, records: Records) -> Tensor:
        """Return the inputs of decoder_outputs; a linear decoder has no hidden layer before it."""
        inputs = self.decoder_input(latents, records)
        if self.recipe.encoder == "exact":
            return inputs
        hidden: Tensor = self.decoder_inputs(inputs)
        return hidden.relu_()

    def config(self) -> dict[str, Any]:
        """Return all but the tensors, as plain JSON."""
        return {
            "layout": self.layout.to_dict(),
            "recipe": self.recipe.to_dict(),
            "indicated": list(self.indicated),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the model with this ``config()`` and ``state_dict()``, on the device of its tensors.

        Raises RuntimeError where they do not belong to one model, or there are no tensors, and ValueError
        where they hold numbers that are not finite: such a model would score, and mean nothing.
        """
        vae = cls(
            Layout.from_dict(config["layout"]), Recipe.from_dict(config["recipe"]), tuple(config["indicated"])
        )
        vae.recurring = RecurringValues(len(state.get("recurring.value", ())))
        vae.to(next((tensor.device for tensor in state.values()), "cpu"))
        vae.load_state_dict({
            "weights": vae.weights,
            "noise.lowest_variance": vae.noise.lowest_variance,
            **{f"recurring.{name}": buffer for name, buffer in vae.recurring.named_buffers()},
            **state,
        })  # older models lack weights, steps and recurring values
        if damaged := [name for name, tensor in vae.state_dict().items() if not tensor.isfinite().all()]:
            raise ValueError(
                f"these tensors of a model hold numbers that are not finite, so it was damaged since it was fitted: "
                f"{', '.join(damaged)}; read it again from where it was saved, or fit it again"
            )
        return vae.eval()
