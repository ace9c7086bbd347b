"""A variational autoencoder that finds anomalous records in tables. torch and the standard library only.

    vae = fit(Layout(numeric=("speed", "flow")), records, seed=7)
    scores = score(vae, records)        # nats: anomaly_score, column_terms, kl_divergence
    reasons = attribute(vae, records[scores.anomaly_score > 20])

docs/reference/vae-core.md goes through all of it.
"""

from vae_core.adversarial import TrainingWarning
from vae_core.attribution import Attribution, attribute, expect_from_others
from vae_core.bound import NegativeElbo, importance_weighted_bound, negative_elbo
from vae_core.checkpoint import Checkpoint, OtherFit
from vae_core.critic import CellCritic, fit_critic
from vae_core.feedback import weigh
from vae_core.generation import Imputed, Latents, encode, impute, sample
from vae_core.known import Known
from vae_core.many import fit_many
from vae_core.model import VAE
from vae_core.parallel import Ranks, joined
from vae_core.ppca import Ppca, fit_ppca
from vae_core.recipe import Recipe
from vae_core.records import MISSING, Layout, Records
from vae_core.run import Progress, TrainingDiverged
from vae_core.scoring import Expected, Scorer, Scores, expect, score
from vae_core.stock import DataWarning
from vae_core.training import fit

__all__ = [
    "MISSING",
    "VAE",
    "Attribution",
    "CellCritic",
    "Checkpoint",
    "DataWarning",
    "Expected",
    "Imputed",
    "Known",
    "Latents",
    "Layout",
    "NegativeElbo",
    "OtherFit",
    "Ppca",
    "Progress",
    "Ranks",
    "Recipe",
    "Records",
    "Scorer",
    "Scores",
    "TrainingDiverged",
    "TrainingWarning",
    "attribute",
    "encode",
    "expect",
    "expect_from_others",
    "fit",
    "fit_critic",
    "fit_many",
    "fit_ppca",
    "importance_weighted_bound",
    "impute",
    "joined",
    "negative_elbo",
    "sample",
    "score",
    "weigh",
]
