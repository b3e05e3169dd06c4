"""The saved model: written once, verified before it is opened, opened before it is trusted.

A model folder holds `saved_model.pkl`, a fitted scikit-learn Pipeline that takes raw rows; `saved_model.npz`, the same
model as arrays that numpy alone answers with, where it can be had so; and `saved_model.json`, the manifest that vouches
for both: their sha256, the library they were made with, the contract, and golden rows with the answers they must get.
Nothing is opened that the manifest does not know.
"""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_ingestion.handoff import Commit, PipelineError, read_verified
from data_ingestion.schema import Contract, Task, join_names, parse_contract
from models.packing import PackingError, write_packed
from models.raw_values import Coded, Values
from models.scorer import CompiledModel, NotCompilableError, Scorer, load_scorer
from models.uncertainty import Uncertainty

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

PICKLE = "saved_model.pkl"
SCORER = "saved_model.npz"
MANIFEST = "saved_model.json"
TRAINER = "models/train_model.py"
GOLDEN_TOLERANCE = 1e-9  # relative: another processor may round the last bits of a sum otherwise

Value = float | int | bool | str | datetime | None
Row = Mapping[str, Value]  # raw features by column name; None is missing, a date is a moment in UTC or the raw text


class Golden(BaseModel):
    """Raw rows and the answers that the model gave when it was saved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[dict[str, float | int | bool | str | None]]
    predictions: list[float | int | str]
    probabilities: list[list[float]] | None = None


class Compilation(BaseModel):
    """Whether there is a scorer beside the pickle, and if not, why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compiled: bool
    reason: str | None = None


class Manifest(BaseModel):
    """What `saved_model.json` says of the model beside it.

    Parameters
    ----------
    model_version : twelve hexadecimal digits, the same for the same data, parameters, code and libraries
    classes : the labels in the order of the probabilities; None for a regression
    estimator : the class of the final estimator
    feature_names : the encoded columns the estimator takes, in order
    files : sha256 of each file of the model
    libraries : the versions that the pickle needs
    contract : the data contract the model was trained under, as plain values
    lineage : what the model was made from, see handoff.Lineage
    split : how its test rows were chosen, see splitter.SplitRequest; empty where it does not say
    golden : rows with their expected answers
    threshold : for two classes, the probability of the second from which on it is the answer; None is 0.5
    uncertainty : how far an answer may be off
    scorer : whether the model is there for numpy alone too
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_version: str
    task: Task
    target: str
    classes: list[int | str] | None
    estimator: str
    feature_names: list[str]
    files: dict[str, str]
    libraries: dict[str, str]
    contract: dict[str, object]
    lineage: dict[str, object]
    split: dict[str, object] = {}
    golden: Golden
    threshold: float | None = None
    uncertainty: Uncertainty | None = Field(None, discriminator="kind")
    scorer: Compilation = Compilation(compiled=False, reason="it was saved before models were compiled")


@dataclass(frozen=True)
class Predictions:
    """Answers for n rows.

    Parameters
    ----------
    values : (n_rows,) numbers for a regression, class labels for a classification
    probabilities : (n_rows, n_classes) in the order of the manifest's classes; None for a regression
    """

    values: list[float | int | str]
    probabilities: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class SavedModel:
    """A verified model, ready to answer.

    Parameters
    ----------
    manifest, contract : what is known of it
    pipeline : fitted
    folder : where it is from; None for one that was not loaded
    """

    manifest: Manifest
    contract: Contract
    pipeline: "Pipeline"
    folder: Path | None = None

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the answers for raw rows; columns that are no features are passed over."""
        return predict_rows(self.pipeline, self.contract, rows)

    def predict_row(self, row: Row) -> tuple[float | int | str, list[float] | None]:
        """Return the answer for one row, and the probabilities of a classification."""
        answers = self.predict([row])
        return answers.values[0], None if answers.probabilities is None else answers.probabilities[0].tolist()


@dataclass(frozen=True)
class ScorerModel:
    """A verified model that answers with numpy alone, as `SavedModel` does."""

    manifest: Manifest
    contract: Contract
    scorer: Scorer

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the answers for raw rows; columns that are no features are passed over."""
        return self._name_answers(self.scorer.score_rows(rows))

    def predict_row(self, row: Row) -> tuple[float | int | str, list[float] | None]:
        """Return the answer for one row, and the probabilities of a classification."""
        answers = self.scorer.score_row(row)
        if answers.ndim == 1:
            return answers.item(), None
        return self._name_answers(answers).values[0], answers[0].tolist()

    def predict_columns(self, columns: Mapping[str, Values | Coded], n_rows: int) -> Predictions:
        """Return the answers for raw columns, as `Scorer.score_columns` takes them."""
        return self._name_answers(self.scorer.score_columns(columns, n_rows))

    def _name_answers(self, answers: NDArray[np.float64]) -> Predictions:
        if not self.contract.is_classification:
            return Predictions(answers.tolist())
        classes = self.manifest.classes or []
        return Predictions([classes[place] for place in self.scorer.choose_places(answers).tolist()], answers)


def predict_rows(pipeline: "Pipeline", contract: Contract, rows: Sequence[Row]) -> Predictions:
    """Return a fitted pipeline's answers for raw rows.

    Parameters
    ----------
    pipeline : takes a raw table
    contract : names the features
    rows : one mapping per row; a feature that is not there counts as missing
    """
    import pandas as pd

    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in contract.features}
    return predict_table(pipeline, pd.DataFrame(columns), contract)


def predict_table(estimator: "BaseEstimator", X: "pd.DataFrame", contract: Contract) -> Predictions:
    """Return the answers of a fitted estimator, or of a whole pipeline, for the rows it takes.

    Parameters
    ----------
    estimator : fitted
    X : (n_rows, n_features) what it takes
    contract : says whether the answers are numbers or classes
    """
    from models.ensemble import choose_places

    if not contract.is_classification:
        return Predictions([float(value) for value in estimator.predict(X)])
    probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    labels = estimator.classes_[choose_places(probabilities, getattr(last, "threshold", None))]
    return Predictions([to_label(label) for label in labels], probabilities)


def to_rows(table: "pa.Table", contract: Contract) -> list[dict[str, Value]]:
    """Return the features of typed rows as a request would send them: dates as ISO 8601 text."""
    rows = table.select(list(contract.features)).to_pylist()
    return [{name: v.isoformat() if isinstance(v, datetime) else v for name, v in row.items()} for row in rows]


def to_label(label: object) -> int | str:
    """Return a class label as a plain value."""
    return label if isinstance(label, str) else int(label)  # type: ignore[call-overload]


def write_model(commit: Commit, folder: Path, pipeline: "Pipeline", describe: Mapping[str, object]) -> Manifest:
    """Write pickle, scorer where there can be one, and manifest as part of `commit`, the manifest last.

    Parameters
    ----------
    commit : the group of files that appear together
    folder : the model folder
    pipeline : fitted; its classes must be importable by name
    describe : the fields of the manifest other than `files` and `scorer`
    """
    from data_ingestion.pickling import dump_pickle

    written = {PICKLE: commit.write(folder / PICKLE, lambda file: dump_pickle(pipeline, file))}
    manifest = Manifest.model_validate({**describe, "files": written})
    compiled, compilation = compile_model(pipeline, manifest)
    if compiled is not None:
        written[SCORER] = commit.write(folder / SCORER, lambda file: write_packed(compiled, file))
    manifest = manifest.model_copy(update={"files": written, "scorer": compilation})
    commit.write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def compile_model(pipeline: "Pipeline", manifest: Manifest) -> tuple[CompiledModel | None, Compilation]:
    """Return a fitted pipeline for numpy alone; None and why where it cannot be had, or answers golden rows otherwise.

    Parameters
    ----------
    pipeline : fitted
    manifest : with the contract and the golden rows
    """
    from models.compiling import compile_pipeline

    contract = parse_contract(manifest.contract, f"{MANIFEST}: contract")
    try:
        compiled = compile_pipeline(pipeline, contract)
    except NotCompilableError as err:
        return None, Compilation(compiled=False, reason=str(err))
    if not answers_golden(ScorerModel(manifest, contract, Scorer(compiled))):
        return None, Compilation(compiled=False, reason="compiled, it answers its golden rows otherwise")
    return compiled, Compilation(compiled=True)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model folder.

    Raises
    ------
    PipelineError : there is no model, or the manifest is damaged
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as err:
        raise PipelineError(f"there is no model in {folder} yet. Run: make run") from err
    except (ValidationError, OSError) as err:
        raise PipelineError(f"{path} is damaged. Run again: python {TRAINER}") from err


def load_model(folder: Path) -> SavedModel:
    """Verify and load the model of a folder.

    The order is the point: the pickle's sha256 and its library version are checked before it is opened, because
    opening a damaged or foreign pickle can crash the process or run code.

    Raises
    ------
    PipelineError : any check fails; the message says which
    """
    manifest = read_manifest(folder)
    contract = parse_contract(manifest.contract, f"{folder / MANIFEST}: contract")
    content = read_verified(folder / PICKLE, manifest.files.get(PICKLE, ""), TRAINER)
    check_libraries(manifest)
    import joblib

    pipeline = joblib.load(io.BytesIO(content))
    check_features(pipeline, contract, folder)
    model = SavedModel(manifest, contract, pipeline, folder)
    check_golden(model, folder)
    return model


def load_scorer_model(folder: Path) -> ScorerModel | SavedModel:
    """Verify and load the model of a folder for numpy alone, without a look at the pickle; see `load_model`.

    Only a model that could not be compiled comes from its pickle.

    Raises
    ------
    PipelineError : any check fails; the message says which
    """
    manifest = read_manifest(folder)
    if not manifest.scorer.compiled:
        return load_model(folder)
    contract = parse_contract(manifest.contract, f"{folder / MANIFEST}: contract")
    content = read_verified(folder / SCORER, manifest.files.get(SCORER, ""), TRAINER)
    try:
        scorer = load_scorer(content)
    except PackingError as err:
        raise PipelineError(f"{folder / SCORER}: {err}. Run again: python {TRAINER}") from err
    check_takes([feature.name for feature in scorer.compiled.features], contract, folder)
    model = ScorerModel(manifest, contract, scorer)
    check_golden(model, folder)
    return model


def list_libraries() -> dict[str, str]:
    """Return the versions of the libraries that a pickle depends on, in this environment."""
    from importlib.metadata import version

    return {name: version(name) for name in ("scikit-learn", "numpy", "pandas", "joblib")}


def check_libraries(manifest: Manifest) -> None:
    """Raise unless this environment has the scikit-learn that made the pickle: others may answer differently."""
    from importlib.metadata import PackageNotFoundError

    needed = manifest.libraries.get("scikit-learn", "none")
    try:
        here = list_libraries()["scikit-learn"]
    except PackageNotFoundError as err:
        reason = manifest.scorer.reason or "it has no compiled form"
        raise PipelineError(
            f"the model {manifest.model_version} needs scikit-learn {needed}, because {reason}, and {sys.prefix} has "
            "none. Serve it from an environment with requirements.txt, or train one that can be compiled."
        ) from err
    if needed != here:
        raise PipelineError(
            f"the model {manifest.model_version} was made with scikit-learn {needed}, and {sys.prefix} has {here}. "
            f"Serve it from an environment with scikit-learn {needed}, or train it again: python {TRAINER}"
        )


def check_features(pipeline: "Pipeline", contract: Contract, folder: Path) -> None:
    """Raise unless the pipeline takes the features that its contract names."""
    check_takes(list(pipeline.named_steps["encoder"].feature_names_in_), contract, folder)


def check_takes(takes: list[str], contract: Contract, folder: Path) -> None:
    """Raise unless what a model takes is what its contract names."""
    if takes != list(contract.features):
        wrong = sorted(set(takes) ^ set(contract.features)) or takes
        raise PipelineError(
            f"the model in {folder} and its contract disagree on the features {join_names(wrong)}. "
            f"Run again: python {TRAINER}"
        )


def answers_golden(model: SavedModel | ScorerModel) -> bool:
    """Return whether the model answers its golden rows as it did when it was saved."""
    golden = model.manifest.golden
    answers = model.predict(golden.rows)
    if golden.probabilities is not None and answers.probabilities is not None:
        return np.allclose(answers.probabilities, golden.probabilities, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE)
    return np.allclose(np.asarray(answers.values), np.asarray(golden.predictions), rtol=GOLDEN_TOLERANCE, atol=0)


def check_golden(model: SavedModel | ScorerModel, folder: Path) -> None:
    """Raise unless the model answers its golden rows as it did when it was saved."""
    if not answers_golden(model):
        raise PipelineError(
            f"the model in {folder} no longer answers its golden rows as it did when it was saved. "
            f"Run again: python {TRAINER}"
        )
