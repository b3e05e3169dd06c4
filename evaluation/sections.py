"""The sections of metrics.json that the report shows, as types. One that a run does not have is absent or None."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict, cast

Bounds = list[float]  # [low, high]
Point = float | int | str | bool | None  # a value of a raw column, as JSON holds it


class CalibrationBin(TypedDict, total=False):
    """Rows with like predictions, and what they came to: a share of the class, or for a regression a mean."""

    low: float
    high: float
    rows: int
    mean_predicted: float
    share_observed: float
    mean_observed: float
    interval: Bounds | None


class Calibration(TypedDict, total=False):
    """Whether predictions mean what they say."""

    bins: list[CalibrationBin]
    expected_calibration_error: float | None
    brier_score: float | None


class Threshold(TypedDict, total=False):
    """What a binary model would come to if it answered yes from this probability on."""

    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    false_positives: int
    false_negatives: int
    answered_positive_share: float
    chosen: bool


class Importance(TypedDict):
    """How much worse the model gets when a raw column is shuffled."""

    column: str
    mean: float
    std: float


PartialDependence = TypedDict(
    "PartialDependence",
    {"column": str, "kind": str, "grid": list[Point], "mean": list[float], "class": NotRequired[int | str]},
)
"""The mean prediction when a raw column is set to each value of a grid, in every row; of a class, its probability."""


class Slice(TypedDict):
    """A part of the test rows where the model does worse than on the others."""

    column: str
    slice: str
    rows: int
    score: float
    interval: Bounds | None
    rest: float
    p_value: float | None
    adjusted_p: float | None


class Slices(TypedDict, total=False):
    """The worst parts of the test rows, of so many looked at."""

    metric: str
    tested: int
    worst: list[Slice]
    caveat: str


class Test(TypedDict, total=False):
    """The section "test", without the figures that stand in it by name (see `read_scores`)."""

    __test__ = False  # type: ignore[misc]  # no test class, whatever pytest makes of the name

    rows: int
    confidence: float
    intervals: dict[str, Bounds | None]
    dummy: dict[str, float | None]
    train: dict[str, float | None] | None
    champion: dict[str, float | str | None] | None
    slices: Slices | None
    calibration: Calibration | None
    thresholds: list[Threshold] | None
    importance: list[Importance] | None
    partial_dependence: list[PartialDependence] | None


def read_test(metrics: Mapping[str, object]) -> Test:
    """Return the section "test" of metrics.json."""
    return cast("Test", metrics["test"])


def read_scores(section: object) -> dict[str, float]:
    """Return the figures by name that a section holds: its numbers, without those that are absent or None."""
    found = cast("Mapping[str, object]", section) if isinstance(section, Mapping) else {}
    return {name: float(value) for name, value in found.items() if isinstance(value, float | int)}
