"""Read a CSV into data/raw.parquet, as data/schema.yaml says; where there is no schema.yaml yet, infer it.

Rows that do not fit go to data/rejected.parquet with their line, column and reason, and to data/rejected.csv, which can
be mended and fed back with --append. What the columns hold is in data/profile.json.

    python data_ingestion/data_loader.py --source data/sample.csv --target body_mass_g
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import Field

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.params import StageParams, parse_params
from data_ingestion.progress import show_transfer
from data_ingestion.schema import Contract, count_of, join_names

if TYPE_CHECKING:
    from data_ingestion.load_writer import LoadWriter
    from data_ingestion.loading import Progress, Reading
    from data_ingestion.source_reader import SourceReader
    from data_ingestion.sources import Source

LIBRARIES = ("pyarrow", "numpy")


class LoadParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "load"

    source: str = Field(
        "data/sample.csv", min_length=1, description="a CSV, several with commas, a pattern, a folder, an address, or -"
    )
    target: str = Field("body_mass_g", min_length=1, description="the column to predict")
    task: Literal["auto", "regression", "classification"] = Field("auto", description="what the target is")
    separator: str | None = Field(None, pattern=contracts.SEPARATOR, description="field separator; none: detect it")
    encoding: str | None = Field(None, description="encoding of the text, such as latin-1; none: UTF-8 or UTF-16")
    max_rejected: float = Field(0.01, ge=0, le=1, description="stop when a larger share of the rows is at fault")
    max_missing_target: float = Field(0.5, ge=0, le=1, description="stop when more of the targets are missing")
    min_rows: int = Field(20, ge=5, description="stop when fewer rows are usable")
    infer: bool = Field(False, description="infer schema.yaml anew; columns edited by hand stay as they are")
    check: bool = Field(False, description="hold the source against schema.yaml and write nothing")
    append: str | None = Field(None, description="a mended rejected.csv: its rows join those in raw.parquet")


Current = tuple[Contract, dict[str, str]]  # schema.yaml, and the checksums of its columns as they were inferred


def is_to_infer(current: Current | None, source: str, params: LoadParams) -> bool:
    """Return whether the contract must be inferred: there is none, another source or target, or `--infer`.

    Raises
    ------
    PipelineError : the source or target changed under a contract that somebody edited
    """
    if current is None or params.infer:
        return True
    contract, inferred = current
    if params.check or (contract.source, contract.target) == (source, params.target):
        return False  # any file can be held against the contract
    edited = contracts.find_edited(contract, inferred)
    if edited:
        raise PipelineError(
            f"data/schema.yaml was edited by hand ({join_names(edited)}) for {contract.source}, target "
            f'"{contract.target}", and this run is for {source}, target "{params.target}". Add --infer to infer '
            "the unedited columns anew, or give this data its own folder with --root."
        )
    return True


def find_known_form(current: Current | None, source: str, params: LoadParams) -> tuple[str | None, str | None]:
    """Return separator and encoding as given, else as the contract knows them of this source; None: find them out."""
    known = current[0] if current is not None and current[0].source == source else None
    if known is not None and params.infer and contracts.WHOLE_FILE not in contracts.find_edited(*current):  # type: ignore[misc]
        known = None
    separator = params.separator or (known.separator if known else None)
    return separator, params.encoding or (known.encoding if known else None)


def open_readers(sources: "list[Source]", encoding: str | None) -> "list[SourceReader]":
    """Return what reads the sources; the first is hashed from now on, while everything else is imported."""
    from data_ingestion.quick_arrow import start_arrow
    from data_ingestion.source_reader import SourceReader

    readers = [SourceReader(replace(source, encoding=encoding)) for source in sources]
    readers[0].hash_ahead()
    start_arrow()
    return readers


def describe_lineage(
    made: Lineage | None, readers: "list[SourceReader]", current: Current | None, params: LoadParams
) -> Lineage:
    """Return what raw.parquet would be made from: the sources, and the rows fed back since to the one that was made."""
    from data_ingestion.sources import join_digests

    is_asked = params.if_changed and not params.infer
    digest = join_digests([reader.hash_whole() for reader in readers]) if is_asked else ""
    appended = made.inputs.get("appended") if made is not None else None
    return Lineage(
        stage="data_loader",
        inputs={
            "source": digest,
            "schema": current[0].fingerprint() if current else "",
            "order": current[0].hash_order() if current else "",
            **({"appended": appended} if appended else {}),
        },
        params={name: value for name, value in params.effective().items() if name != "source"},
        code=files.sha256_code(["data_ingestion"], LIBRARIES),
    )


def load(workspace: Workspace, params: LoadParams, found: "list[Source]", source: str) -> None:
    """Read the sources, hold them against the contract, and write the outputs together."""
    current = contracts.read_contract(workspace.schema) if workspace.schema.exists() else None
    separator, encoding = find_known_form(current, source, params)
    readers = open_readers(found, encoding)
    made = files.read_lineage(workspace.raw)
    lineage = describe_lineage(made, readers, current, params)
    is_wanted = params.infer or not params.if_changed or not workspace.rejected_csv.exists()
    if not is_wanted and made and made.matches(lineage) and files.has_outputs(made, workspace.raw.parent):
        print(f"data/raw.parquet is up to date with {source}")
        return
    lost = made.rows.get("appended", 0) if made is not None else 0
    infers = is_to_infer(current, source, params)
    with show_transfer("loading", sum(one.size for one in found)) as progress:
        if infers or current is None:
            contract, reading, notes = infer_and_write(
                workspace, readers, source, separator, current, params, lineage, progress
            )
        else:
            contract, reading, notes = check_and_write(
                workspace, readers, source, separator, current, params, lineage, progress
            )
    if lost:
        kept = sorted(path.name for path in (workspace.root / "data").glob(f"{files.APPENDED}*.csv"))
        again = ", ".join(f"--append data/{name}" for name in kept) or "--append FILE"
        notes.append(f"{count_of(lost, 'row')} fed back with --append before must be fed back again: {again}")
    print_report(contract, source, reading, readers, notes)
    print(
        "checked; nothing was written"
        if params.check
        else f"wrote data/raw.parquet ({reading.tally.kept:,} rows), data/rejected.parquet, data/rejected.csv, "
        "data/schema.yaml, data/profile.json"
    )


def print_report(
    contract: Contract, source: str, reading: "Reading", readers: "list[SourceReader]", notes: list[str]
) -> None:
    """Print what was read, and what there is to say of it."""
    from data_ingestion.load_report import describe_load

    said = list(dict.fromkeys(note for reader in readers for note in reader.notes))
    is_table = all(reader.is_table for reader in readers)
    lines = describe_load(contract, source, reading, [*said, *notes, *reading.notes], is_table)
    print("\n".join(map(files.to_line, lines)))


def infer_and_write(
    workspace: Workspace,
    readers: "list[SourceReader]",
    source: str,
    separator: str | None,
    current: Current | None,
    params: LoadParams,
    lineage: Lineage,
    progress: "Progress",
) -> "tuple[Contract, Reading, list[str]]":
    """Infer the contract over the whole sources, write everything, and return the contract and what there is to say."""
    from data_ingestion.inferring import MAX_READINGS, start_inference
    from data_ingestion.tally import check_limits

    limits = (params.max_rejected, params.min_rows)
    belief = start_inference(readers, source, separator, current, params.target, params.task, *limits)
    for _ in range(MAX_READINGS):
        layout = belief.build_layout()
        with open_writer(workspace, layout.contract, params.check) as writer:
            reading = belief.read(layout, writer.outputs if writer else None, progress)
            if belief.revise(reading):
                continue  # what was written is given up, for nobody closed the writer
            contract, inferred, notes = belief.conclude(reading)
            allowed = (params.max_rejected, params.max_missing_target, params.min_rows)
            check_limits(reading.tally, contract.target, source, *allowed)
            if writer:
                writer.close(contract, inferred, current and current[0], reading, seal_lineage(lineage, readers))
        return contract, reading, notes
    raise RuntimeError(f"{source}: the kinds of its columns did not settle in {MAX_READINGS} readings")


def check_and_write(
    workspace: Workspace,
    readers: "list[SourceReader]",
    source: str,
    separator: str | None,
    current: Current,
    params: LoadParams,
    lineage: Lineage,
    progress: "Progress",
) -> "tuple[Contract, Reading, list[str]]":
    """Hold the sources against the contract, write everything, and return what there is to say."""
    from data_ingestion.load_report import describe_findings
    from data_ingestion.loading import read_sources
    from data_ingestion.tally import check_limits, check_target
    from data_ingestion.typed_blocks import Layout

    contract, inferred = current
    edited = contracts.find_edited(contract, inferred)
    notes = [f"schema.yaml: edited by hand: {join_names(edited)}"] if edited else []
    if params.target != contract.target:
        notes.append(f'held against data/schema.yaml, whose target is "{contract.target}", not "{params.target}"')
    with open_writer(workspace, contract, params.check) as writer:
        reading = read_sources(
            readers, separator, Layout(contract), False, writer.outputs if writer else None, progress
        )
        try:
            allowed = (params.max_rejected, params.max_missing_target, params.min_rows)
            check_limits(reading.tally, contract.target, source, *allowed)
        except PipelineError as err:
            found = [*reading.notes, *describe_findings(contract, source, reading)]
            raise PipelineError(f"{err} Found besides: {'; '.join(found)}." if found else str(err)) from None
        check_target(reading.profile.count_distinct(contract.target), contract.target, source)
        if writer:
            writer.close(contract, inferred, contract, reading, seal_lineage(lineage, readers))
    return contract, reading, notes


@contextmanager
def open_writer(workspace: Workspace, contract: Contract, is_check: bool) -> "Iterator[LoadWriter | None]":
    """Open the outputs of one reading; None when nothing is to be written."""
    from data_ingestion.load_writer import LoadWriter

    if is_check:
        yield None
        return
    with files.commit() as commit, LoadWriter(commit, workspace, contract) as writer:
        yield writer


def seal_lineage(lineage: Lineage, readers: "list[SourceReader]") -> Lineage:
    """Return the lineage of what was read now, without rows that were fed back before."""
    from data_ingestion.sources import join_digests

    digest = join_digests([reader.sha256 for reader in readers])
    return replace(lineage, inputs={"source": digest, "schema": lineage.inputs["schema"]})


def append(workspace: Workspace, params: LoadParams, reader: "SourceReader") -> None:
    """Add mended rows to raw.parquet."""
    from data_ingestion.appending import append_rows

    with show_transfer("appending", reader.source.size) as progress:
        is_written, lines = append_rows(workspace, reader, params.separator, params.check, progress)
    print("\n".join(map(files.to_line, lines)))
    print("wrote data/raw.parquet, data/rejected.parquet, data/rejected.csv" if is_written else "nothing was written")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(LoadParams, argv, __doc__ or "")
    from data_ingestion.sources import open_sources

    given = params.append or params.source
    with files.open_workspace(params.root) as workspace, open_sources(given, workspace) as (found, source):
        if params.append:
            from data_ingestion.appending import is_rejected_csv

            for one in found:  # rejected.csv is UTF-8, whatever its source was
                (reader,) = open_readers([one], None if is_rejected_csv(one.path) else params.encoding)
                append(workspace, params, reader)
        else:
            load(workspace, params, found, source)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
