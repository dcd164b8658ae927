"""/scorers and /models: how searches may be scored, and which models are installed."""

from __future__ import annotations

from fastapi import APIRouter

from model.installed import installed_models
from service.responses.models import ModelList, ModelResponse, ScorerList
from service.routes.problems import problems
from service.state import State

router = APIRouter(tags=["service"])


@router.get("/scorers", responses=problems())
def scorers(state: State) -> ScorerList:
    """The values that `scorer` of a search may have with the model that is served."""
    return ScorerList.from_spec(state.index.model.spec)


@router.get("/models", responses=problems())
def models(state: State) -> ModelList:
    """The model that is served, and those that `VIDGRAIN_MODEL` could name instead; a damaged one with its error."""
    spec = state.index.model.spec
    others = [model for model in installed_models(state.settings.models) if not model.is_called(spec.name)]
    return ModelList(models=[ModelResponse.from_spec(spec), *(ModelResponse.from_installed(model) for model in others)])
