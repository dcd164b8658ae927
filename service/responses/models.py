"""Models and scorers as the service answers them. Made from the model's own descriptions; no weights are read."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from model.families import KINDS
from model.installed import InstalledModel
from model.scorers import SCORERS, choose_scorer
from model.types import ModelSpec, Precision, public_name
from service.responses.parts import Reason, reason

Scorer = Annotated[str, Field(json_schema_extra={"enum": [*SCORERS]})]
Kind = Annotated[str, Field(json_schema_extra={"enum": [*KINDS]})]


class ScorerResponse(BaseModel):
    """A way to score."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Scorer
    about: str
    parts: list[str]
    """What its score is made of, as in `explain.grains`."""

    is_default: bool
    """Whether a sentence is searched by it unless another is named."""

    takes_clips: bool
    """Whether a query may be a clip."""

    is_default_of_clips: bool
    """Whether a clip is searched by it unless another is named."""


class ScorerList(BaseModel):
    """What the model's features can be scored by, the default first."""

    scorers: list[ScorerResponse]

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> ScorerList:
        """The scorers of the model that is served."""
        for_text = choose_scorer(spec.scorers, None, query_is_clip=False)
        for_clips = choose_scorer(spec.scorers, None, query_is_clip=True)
        return cls(
            scorers=[
                ScorerResponse(
                    name=name,
                    about=SCORERS[name].about,
                    parts=list(SCORERS[name].parts),
                    is_default=name == for_text,
                    takes_clips=SCORERS[name].takes_clips,
                    is_default_of_clips=name == for_clips,
                )
                for name in spec.scorers
            ]
        )


class ModelResponse(BaseModel):
    """An installed model. What only its weights could tell is null."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    kind: Kind | None
    fingerprint: str | None
    precision: Precision | None
    """What frames are encoded in."""

    embed_dim: int | None
    num_frames: int | None
    num_words: int | None
    image_size: int | None
    temporal: str | None
    scorers: list[Scorer]
    is_served: bool
    error: Reason | None
    """Why it can't be used."""

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> ModelResponse:
        """The model that is loaded, which is the one served."""
        return cls._of(spec, fingerprint=spec.fingerprint, precision=spec.precision, is_served=True)

    @classmethod
    def from_installed(cls, model: InstalledModel, *, is_served: bool = False) -> ModelResponse:
        """A model that was not loaded."""
        wrong = model.error
        error = reason(wrong.code, wrong.describe(folders=False)) if wrong else None
        return cls._of(model, is_served=is_served, error=error)

    @classmethod
    def _of(
        cls,
        model: ModelSpec | InstalledModel,
        *,
        is_served: bool,
        fingerprint: str | None = None,
        precision: Precision | None = None,
        error: Reason | None = None,
    ) -> ModelResponse:
        return cls(
            name=public_name(model.name),
            kind=model.kind,
            fingerprint=fingerprint,
            precision=precision,
            embed_dim=model.embed_dim,
            num_frames=model.num_frames,
            num_words=model.num_words,
            image_size=model.image_size,
            temporal=model.temporal,
            scorers=list(model.scorers),
            is_served=is_served,
            error=error,
        )


class ModelList(BaseModel):
    """The served model first."""

    models: list[ModelResponse]
