"""What a dataset's file asks of a challenger before it may become champion: `promote.gates`.

Belongs here: the gates, their levels and bounds. Does not: what is measured, or what a decision says
(evaluation/).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Level = Literal["required", "advisory", "off"]


class Gate(BaseModel):
    """One question. required: who fails is refused; advisory: it is said; off: not asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level = "required"


class Least(Gate):
    """With a lower bound."""

    least: float = Field(0, ge=0, description="smallest value that passes")


class Most(Gate):
    """With an upper bound."""

    most: float = Field(1, ge=0, description="largest value that passes")


class Margin(Gate):
    """A comparison."""

    margin: float = Field(0, ge=0, description="how far behind still passes, chance allowed for on top")


class Band(Gate):
    """What was observed over what was promised."""

    lowest: float = Field(0, ge=0, le=1, description="smallest ratio that passes, chance allowed for")
    highest: float = Field(1, ge=1, description="largest ratio that passes, chance allowed for")


class Kept(Gate):
    """What people confirmed."""

    allowed: list[str] = Field(default_factory=list, description="anomaly_ids that may be lost")


def _spelled_out(value: Any) -> Any:
    """Expand `churn: off` to `churn: {level: off}`; YAML reads a bare off as false."""
    if isinstance(value, str) or value is False:
        value = {"level": value}
    if isinstance(value, dict) and value.get("level") is False:
        return {**value, "level": "off"}
    return value


_Gate = Annotated[Gate, BeforeValidator(_spelled_out, json_schema_input_type=Gate | Level | Literal[False])]
_Least = Annotated[
    Least, BeforeValidator(_spelled_out, json_schema_input_type=Least | Level | Literal[False])
]
_Most = Annotated[Most, BeforeValidator(_spelled_out, json_schema_input_type=Most | Level | Literal[False])]
_Margin = Annotated[
    Margin, BeforeValidator(_spelled_out, json_schema_input_type=Margin | Level | Literal[False])
]
_Band = Annotated[Band, BeforeValidator(_spelled_out, json_schema_input_type=Band | Level | Literal[False])]
_Kept = Annotated[Kept, BeforeValidator(_spelled_out, json_schema_input_type=Kept | Level | Literal[False])]


class Gates(BaseModel):
    """What is asked of a challenger: a level for each gate, or a level and bounds; what is not given stays at
    its default. A description is what is measured, in the words in which it is shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    collapse: _Least = Field(
        Least(least=0.9), description="how often a gross error scores above an ordinary record"
    )
    learned: _Most = Field(
        Most(most=0.05),
        description="share of the records that its training read which are odder than those held out of the same batches",
    )
    recall: _Margin = Field(
        Margin(margin=0.1), description="injected anomalies found, each version at its own threshold"
    )
    recall_floor: _Least = Field(
        Least(level="advisory", least=0.05),
        description="injected anomalies found, beside flags among the records that they were made from",
    )
    baselines: _Margin = Field(
        Margin(margin=0.05),
        description="injected anomalies found at equal ranks, beside probabilistic PCA and IsolationForest",
    )
    negative_elbo: _Margin = Field(
        Margin(margin=1), description="nats to describe a record of the holdout; fewer are better"
    )
    flag_rate: _Band = Field(
        Band(lowest=0.1, highest=3), description="flags among the newest days' holdout, over those promised"
    )
    p_values: _Band = Field(
        Band(level="advisory", lowest=0.1, highest=2),
        description="share of the newest days' holdout with p-values up to 5 %, over 5 %",
    )
    churn: _Most = Field(
        Most(level="advisory", most=0.8),
        description="share of both versions' flags of the newest days that one alone gives",
    )
    seed_variance: _Most = Field(
        Most(level="off", most=0.05), description="how far another seed moves recall; costs a training"
    )
    cost: _Most = Field(Most(level="advisory", most=3), description="CPU time of scoring a record")
    precision: _Gate = Field(Gate(), description="confirmed anomalies among judged flags")
    confirmed: _Gate = Field(Gate(), description="confirmed anomalies that are flagged")
    kept: _Kept = Field(
        Kept(), description="confirmed anomalies that it finds ordinary and the version beside it flags"
    )

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        spelled = {name: _spelled_out(value) for name, value in given.items()}
        return {
            name: {**cls.model_fields[name].default.model_dump(), **value}
            if name in cls.model_fields and isinstance(value, dict)
            else value
            for name, value in spelled.items()
        }
