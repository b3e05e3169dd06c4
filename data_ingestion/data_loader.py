"""Read a CSV into data/raw.parquet, as data/schema.yaml says; where there is no schema.yaml yet, infer it.

Rows that do not fit go to data/rejected.parquet with their line, column and reason.

    python data_ingestion/data_loader.py --source data/sample.csv --target body_mass_g
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import Field

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.params import StageParams, parse_params
from data_ingestion.progress import show_progress
from data_ingestion.schema import Contract, count_of, join_names

if TYPE_CHECKING:
    import pyarrow as pa

    from data_ingestion.csv_reader import TextTable
    from data_ingestion.validation import Loaded


class LoadParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "load"

    source: Path = Field(Path("data/sample.csv"), description="the CSV to read")
    target: str = Field("body_mass_g", min_length=1, description="the column to predict")
    task: Literal["auto", "regression", "classification"] = Field("auto", description="what the target is")
    separator: str | None = Field(None, min_length=1, max_length=1, description="field separator; none: detect it")
    max_rejected: float = Field(0.01, ge=0, le=1, description="stop when a larger share of the rows is at fault")
    max_missing_target: float = Field(0.5, ge=0, le=1, description="stop when more of the targets are missing")
    min_rows: int = Field(20, ge=5, description="stop when fewer rows are usable")
    infer: bool = Field(False, description="infer schema.yaml anew; columns edited by hand stay as they are")


def find_source(path: Path, root: Path) -> Path:
    """Return the source where it exists: from the current folder, else below the root, else in the repository."""
    places = [Path(os.path.abspath(folder / path)) for folder in (Path.cwd(), root, files.REPOSITORY)]
    return next((place for place in places if os.path.lexists(place)), places[0])


def find_known_separator(current: tuple[Contract, dict[str, str]] | None, source: str, infer: bool) -> str | None:
    """Return the separator that the contract knows of this source, or None when it is to be found out."""
    if current is None or current[0].source != source:
        return None
    is_stale = infer and contracts.WHOLE_FILE not in contracts.find_edited(*current)
    return None if is_stale else current[0].separator


def decide_contract(
    current: tuple[Contract, dict[str, str]] | None, texts: "TextTable", source: str, separator: str, params: LoadParams
) -> tuple[Contract, dict[str, str], list[str]]:
    """Return the contract to load by, the checksums of its inferred columns, and notes.

    A contract on disk stands until the source or target changes or `--infer` is given; what was edited by hand stands
    in any case.

    Raises
    ------
    PipelineError : the source or target changed under a contract that somebody edited
    """
    from data_ingestion import inference

    if current is not None:
        contract, inferred = current
        edited = contracts.find_edited(contract, inferred)
        switched = (contract.source, contract.target) != (source, params.target)
        if not switched and not params.infer:
            return contract, inferred, [f"schema.yaml: edited by hand: {join_names(edited)}"] if edited else []
        if edited and not params.infer:
            raise PipelineError(
                f"data/schema.yaml was edited by hand ({join_names(edited)}) for {contract.source}, target "
                f'"{contract.target}", and this run is for {source}, target "{params.target}". Add --infer to infer '
                "the unedited columns anew, or give this data its own folder with --root."
            )
    contract, notes = inference.infer_contract(
        texts, source, separator, params.target, params.task, params.max_rejected
    )
    inferred = contracts.checksum_contract(contract)
    if current is not None and edited:
        contract, kept = inference.merge_edits(contract, current[0], edited)
        dropped = [name for name in edited if name not in kept]
        notes += [f"schema.yaml: kept as edited by hand: {join_names(kept)}"] if kept else []
        notes += [f"schema.yaml: edits given up, for they do not fit here: {join_names(dropped)}"] if dropped else []
    return contract, inferred, notes


def describe_load(loaded: "Loaded", rejected: "pa.Table", contract: Contract) -> list[str]:
    """Return the lines that tell what was read, the first five rows at fault among them."""
    import pyarrow.compute as pc

    from data_ingestion.csv_reader import SEPARATORS
    from data_ingestion.validation import TARGET_MISSING

    total = loaded.table.num_rows + len(loaded.rejects)
    separator = SEPARATORS.get(contract.separator, repr(contract.separator))
    lines = [
        f"{contract.source}: {count_of(total, 'row')}, {count_of(len(contract.columns), 'column')}, "
        f"separated by {separator}",
        f'  target "{contract.target}": {describe_target(contract)}',
    ]
    kinds = Counter(column.kind for column in contract.features.values())
    lines.append(
        f"  {count_of(len(contract.features), 'feature')}: "
        + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    )
    ignored = [(name, contract.columns[name].reason) for name in contract.columns_with_role("ignored")]
    lines += [f'  ignored "{name}": {reason or "so says data/schema.yaml"}' for name, reason in ignored[:10]]
    if len(ignored) > 10:
        lines.append(f"  ignored {len(ignored) - 10} columns more, see data/schema.yaml")
    reasons = Counter(r.reason if r.reason == TARGET_MISSING else "at fault" for r in loaded.rejects)
    lines += [f"  set aside, {reason}: {count_of(count, 'row')}" for reason, count in reasons.items()]
    faults = rejected.filter(pc.not_equal(rejected["reason"], TARGET_MISSING)).slice(0, 5).to_pylist()
    lines += [f"    line {fault['line']}: {fault['reason']}" for fault in faults]
    return lines + [f"  note: {note}" for note in loaded.notes]


def describe_target(contract: Contract) -> str:
    """Return the task and the target's values in words."""
    column = contract.columns[contract.target]
    if not contract.is_classification:
        return f"regression, {column.kind}s from {column.min} to {column.max}"
    if column.categories is None:
        return f"{contract.task} classification, {column.kind}s from {column.min} to {column.max}"
    return f"{contract.task} classification, {len(column.categories)} classes: {join_names(column.categories)}"


def load(workspace: Workspace, params: LoadParams) -> None:
    """Read the source, hold it against the contract, and write the three outputs together."""
    from data_ingestion import csv_reader, sources
    from data_ingestion.validation import (
        Loaded,
        apply_contract,
        build_rejected,
        check_faults,
        check_limits,
        check_row_count,
    )

    path = find_source(params.source, workspace.root)
    source = workspace.show(path)
    content = sources.read_source(path, workspace)
    current = contracts.read_contract(workspace.schema) if workspace.schema.exists() else None
    lineage = Lineage(
        stage="data_loader",
        inputs={"source": files.sha256_bytes(content), "schema": current[0].fingerprint() if current else ""},
        params={name: value for name, value in params.effective().items() if name != "source"},
        code=files.sha256_code(["data_ingestion"], ["pyarrow"]),
    )
    if params.if_changed and not params.infer and files.is_current(workspace.raw, lineage):
        print(f"data/raw.parquet is up to date with {source}")
        return
    text, notes = sources.decode_source(content, source)
    known = find_known_separator(current, source, params.infer)
    separator = params.separator or known or csv_reader.detect_separator(text, source)
    texts = csv_reader.read_texts(text, separator, source)
    total = texts.table.num_rows + len(texts.rejects)
    check_faults(build_rejected(texts.rejects, text, separator), total, source, params.max_rejected)
    check_row_count(total, source, params.min_rows)
    contract, inferred, remarks = decide_contract(current, texts, source, separator, params)
    loaded = apply_contract(texts, contract)
    rejected = build_rejected(loaded.rejects, text, separator)
    check_limits(loaded, rejected, contract, params.max_rejected, params.max_missing_target, params.min_rows)
    write_outputs(workspace, contract, current and current[0], inferred, loaded.table, rejected, lineage)
    loaded = Loaded(loaded.table, loaded.rejects, [*notes, *remarks, *loaded.notes])
    print("\n".join(describe_load(loaded, rejected, contract)))
    print(f"wrote data/raw.parquet ({loaded.table.num_rows:,} rows), data/rejected.parquet, data/schema.yaml")


def write_outputs(
    workspace: Workspace,
    contract: Contract,
    current: Contract | None,
    inferred: dict[str, str],
    table: "pa.Table",
    rejected: "pa.Table",
    lineage: Lineage,
) -> None:
    """Write rejected.parquet, schema.yaml unless it stands as it is, and last raw.parquet, which vouches for both."""
    rows = {"in": table.num_rows + rejected.num_rows, "rejected": rejected.num_rows, "kept": table.num_rows}
    lineage = replace(lineage, inputs=lineage.inputs | {"schema": contract.fingerprint()}, rows=rows)
    with files.commit() as commit:
        outputs = {"rejected.parquet": commit.write_parquet(workspace.rejected, rejected, lineage)}
        if contract != current:
            commit.write_bytes(workspace.schema, contracts.format_contract(contract, inferred))
        commit.write_parquet(workspace.raw, table, replace(lineage, outputs=outputs))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(LoadParams, argv, __doc__ or "")
    with files.open_workspace(params.root) as workspace, show_progress("loading"):
        load(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
