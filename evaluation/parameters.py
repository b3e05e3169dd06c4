"""The parameters of the evaluation."""

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator

from data_ingestion.handoff import PipelineError
from data_ingestion.params import StageParams, suggest


class EvaluateParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "evaluate"

    resamples: int = Field(1000, ge=100, description="bootstrap resamples of the test rows behind each interval")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of intervals, and of what the verdict takes for sure")
    limits: dict[str, float] | None = Field(
        None, description="figures that the model must reach, such as rmse=500,r2=0.8: errors at most, scores at least"
    )
    tolerance: float = Field(0.01, ge=0, description="a model worse than the champion by a larger share is rejected")
    max_slice_excess: float = Field(0.1, ge=0, description="so much worse than the champion a slice may be, as a share")
    min_slice_rows: int = Field(50, ge=10, description="slices of fewer test rows are not looked at")
    dry_run: bool = Field(False, description="judge the model and write nothing")

    @field_validator("limits", mode="before")
    @classmethod
    def _parse_limits(cls, value: object) -> dict[str, float]:
        """Return limits by figure, from a mapping in params.yaml or from a text such as rmse=500,r2=0.8."""
        return parse_limits(value)


def parse_limits(value: object) -> dict[str, float]:
    """Return limits by figure.

    Raises
    ------
    PipelineError : a figure that nobody knows (the nearest is offered), or no number
    """
    if not value:
        return {}
    if isinstance(value, str):
        pairs = [part.partition("=")[::2] for part in value.split(",")]
    elif isinstance(value, Mapping):
        pairs = [(str(name), limit) for name, limit in value.items()]
    else:
        raise PipelineError(f"limits expects figures with numbers, such as rmse=500,r2=0.8, got {value!r}. Correct it.")
    from evaluation.metrics import TITLES

    limits: dict[str, float] = {}
    for name, limit in ((name.strip(), limit) for name, limit in pairs):
        if name not in TITLES:
            raise PipelineError(f'limits: unknown figure "{name}".{suggest(name, list(TITLES))}')
        try:
            limits[name] = float(limit)
        except (TypeError, ValueError):
            limits[name] = math.nan
        if not math.isfinite(limits[name]):
            raise PipelineError(f"limits: {name} expects a number, got {limit!r}. Write it as {name}=0.8.")
    return limits
