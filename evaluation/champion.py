"""The model in `models/champion/`, which the one under test would replace: found, opened, and asked for the same rows.

A champion that is there and cannot be asked is no reason to pass: nobody knows then which of the two is better.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_ingestion.handoff import PipelineError
from data_ingestion.schema import join_names, parse_contract
from data_ingestion.splitter import SplitRequest, find_train_rows
from evaluation.gate import Check
from models import artifact
from models.artifact import Manifest, Predictions, SavedModel, predict_table

INSTEAD = "or remove models/champion/ to judge without one"
# A pickle that is whole may still need a class that has since gone, and raise what it likes without it.
CANNOT_ASK = (PipelineError, AttributeError, ImportError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Champion:
    """What the champion has to say.

    Parameters
    ----------
    version : its model version; None where the manifest cannot be read
    answers : for the test rows; None when it could not be asked, or need not be
    check : why there are no answers, and what that means for the verdict
    """

    version: str | None
    answers: Predictions | None = None
    check: Check | None = None


def ask_champion(folder: Path, candidate: SavedModel, table: pa.Table) -> Champion | None:
    """Return the champion's answers for the test rows, or why there are none; None when there is no champion.

    Parameters
    ----------
    folder : models/champion
    candidate : the model under test
    table : (n_rows, n_columns) typed raw test rows
    """
    if not folder.is_dir() or not any(path.name.startswith("saved_model.") for path in folder.iterdir()):
        return None
    try:
        manifest = artifact.read_manifest(folder)
    except PipelineError:
        return Champion(None, check=_fail(f"its manifest is damaged. Put it back, {INSTEAD}"))
    try:
        check = find_obstacle(manifest, candidate.manifest, table.column_names)
        if check is None:
            check = check_unseen(manifest, candidate.manifest, table)
        if check is not None:
            return Champion(manifest.model_version, check=check)
        champion = artifact.load_model(folder)
        features = table.select(list(champion.contract.features)).to_pandas()
        answers = predict_table(champion.pipeline, features, champion.contract)
    except CANNOT_ASK:
        return Champion(
            manifest.model_version,
            check=_fail(
                f"its files are damaged, or the code or the columns have changed since. Put it back, {INSTEAD}"
            ),
        )
    return Champion(manifest.model_version, answers)


def find_obstacle(champion: Manifest, candidate: Manifest, columns: list[str]) -> Check | None:
    """Return what rules a comparison out, known before the champion is opened.

    A model is not compared with itself, nor with one that answers another question; both leave the verdict to the
    other checks. What would have to be compared and cannot be makes it inconclusive.

    Parameters
    ----------
    champion, candidate : their manifests
    columns : of the raw test rows
    """
    if champion.model_version == candidate.model_version:
        return Check("passed", f"the champion is this very model, {champion.model_version}")
    if (champion.target, champion.task) != (candidate.target, candidate.task):
        asked = f"{champion.target} ({champion.task})"
        return Check("passed", f"the champion predicts {asked}, another question: it was not compared")
    needed, here = champion.libraries.get("scikit-learn", "none"), artifact.list_libraries()["scikit-learn"]
    if needed != here:
        return _fail(
            f"it was made with scikit-learn {needed}, and this is {here}. Use scikit-learn {needed}, {INSTEAD}"
        )
    unshared = set(champion.classes or []) ^ set(candidate.classes or [])
    if unshared:
        return _fail(
            f"one of the two does not know {join_names(sorted(map(str, unshared)))}. Train both anew, {INSTEAD}"
        )
    contract = parse_contract(champion.contract, artifact.MANIFEST)
    gone = [name for name in contract.features if name not in columns]
    if gone:
        return _fail(f"the rows no longer hold its {join_names(gone)}. Bring them back, {INSTEAD}")
    return None


def check_unseen(champion: Manifest, candidate: Manifest, table: pa.Table) -> Check | None:
    """Return what rules a comparison out when the champion has learnt from rows that are test rows now.

    Parameters
    ----------
    champion, candidate : their manifests
    table : (n_rows, n_columns) typed raw test rows
    """
    if champion.split == candidate.split and champion.split.get("strategy") not in ("hash", "group"):
        return None  # the cut may have moved a little with the rows that came
    if not champion.split:
        return None
    contract = parse_contract(champion.contract, artifact.MANIFEST)
    is_learnt = find_train_rows(table, contract, SplitRequest(**champion.split))  # type: ignore[arg-type]
    repair = f"Train it anew on this split, {INSTEAD}"
    if is_learnt is None:
        return _fail(f"its test rows were chosen in another way, so it may have learnt from these. {repair}")
    if is_learnt.any():
        learnt = f"it has learnt from {np.count_nonzero(is_learnt):,} of these {len(is_learnt):,} test rows"
        return _fail(f"{learnt}, which were chosen in another way then. {repair}")
    return None


def _fail(reason: str) -> Check:
    return Check("inconclusive", f"the champion cannot be asked: {reason}")
