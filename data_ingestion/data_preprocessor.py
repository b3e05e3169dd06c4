"""Split data/raw.parquet, look for leaks, fit the encoder on the train rows, and encode, row group by row group.

Writes data/processed.parquet, data/encoder.pkl, data/encoding.json and data/leaks.json. `processed.parquet` holds
row_id (the row's place in raw.parquet), split (train, test, validation, or gap), the encoded features and the target.

    python data_ingestion/data_preprocessor.py --split hash --test-size 0.2
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import Field, model_validator

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.params import StageParams, parse_params
from data_ingestion.schema import Contract, Strategy

if TYPE_CHECKING:
    import pyarrow as pa

    from data_ingestion.leaks import Finding
    from data_ingestion.learnt import Learnt
    from data_ingestion.row_groups import RowGroups
    from data_ingestion.scan import Scan
    from data_ingestion.sealed_parquet import ParquetSource

LIBRARIES = ("pyarrow", "numpy", "pandas", "scikit-learn")


class PreprocessParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "preprocess"

    split: Strategy = Field("hash", description="how to choose the test rows")
    split_column: str | None = Field(None, description="column of --split group or time; none: the one with that role")
    test_size: float = Field(0.2, gt=0, lt=1, description="share of test rows")
    validation_size: float = Field(
        0.0, ge=0, lt=1, description="share of validation rows: neither trained nor tested on"
    )
    gap: float = Field(0.0, ge=0, description="--split time leaves out the rows of so many days before the cut")
    min_frequency: int = Field(5, ge=1, description="categories with fewer train rows share one code")
    max_levels: int = Field(50, ge=1, le=250, description="categories with more levels become target means")
    strict: bool = Field(False, description="stop at a sign that the target has leaked into the features")

    @model_validator(mode="after")
    def _check_shares(self) -> "PreprocessParams":
        if self.test_size + self.validation_size >= 1:
            raise PipelineError(
                f"test_size {self.test_size:g} and validation_size {self.validation_size:g} leave no row to train on. "
                "Choose a smaller one."
            )
        return self


@dataclass(frozen=True)
class Prepared:
    """What is known before the rows are encoded.

    Parameters
    ----------
    scan : the split
    n_learnt_from : how many rows were drawn to learn from, all sides together
    audited : the rows to look at for leaks
    learnt : the encoder, fitted on the train rows
    encoding : what became of every column
    """

    scan: "Scan"
    n_learnt_from: int
    audited: "pa.Table"
    learnt: "Learnt"
    encoding: dict[str, object]

    def count_rows(self) -> dict[str, int]:
        """Return the rows by side; validation and gap only where there are any."""
        return {side: n for side, n in self.scan.count_sides().items() if n or side in ("train", "test")}


def describe_features(contract: Contract) -> list[dict[str, object]]:
    """Return what the encoder needs to know of each feature, in contract order."""
    return [
        {
            "name": name,
            "kind": column.kind,
            "missing": contract.missing_spellings(name),
            "true_values": column.true_values or ["true"],
            "false_values": column.false_values or ["false"],
            "format": column.format or contracts.ISO,
            "decimal": column.decimal or ".",
            "thousands": column.thousands,
            "currency": column.currency,
            "categories": column.categories or [],
        }
        for name, column in contract.features.items()
    ]


def prepare_rows(raw: "RowGroups", contract: Contract, params: PreprocessParams) -> Prepared:
    """Split the rows, and fit the encoder on a sample of the train rows."""
    from data_ingestion.scan import N_FOLDS, scan_rows
    from data_ingestion.splitter import SplitRequest, check_split, plan_split

    request = SplitRequest(
        params.split, params.split_column, params.test_size, params.validation_size, params.gap, params.seed
    )
    scan, sample = scan_rows(raw, contract, plan_split(raw, contract, request))
    train, folds = sample.find_train(scan)
    n_classes = len(train[contract.target].unique()) if contract.is_classification else None
    check_split(scan.count_sides(), n_classes, request)

    from data_ingestion.encoding_report import report_encoding
    from data_ingestion.learnt import EncodeRequest, learn_encoder

    features = describe_features(contract)
    encode = EncodeRequest(features, contract.task, params.min_frequency, params.max_levels, params.seed)
    try:
        learnt = learn_encoder(train, contract.target, folds, N_FOLDS, encode)
    except ValueError as err:
        raise PipelineError(f"data/raw.parquet: {err}. Mend data/schema.yaml.") from err
    audited = sample.find_audited(params.seed)
    return Prepared(scan, len(sample.places), audited, learnt, report_encoding(learnt, contract, params.min_frequency))


def audit_rows(prepared: Prepared, contract: Contract, seed: int) -> "list[Finding]":
    """Return what looks like a leak: in a stable sample of the rows, and for duplicates in all of them."""
    from data_ingestion.leaks import find_duplicates, find_leaks

    findings = find_leaks(prepared.audited.to_pandas(), contract, seed)
    return findings + find_duplicates(prepared.scan.contents, prepared.scan.content_sides)


def encode_groups(
    raw: "ParquetSource", contract: Contract, prepared: Prepared
) -> "tuple[pa.Schema, Iterator[pa.Table]]":
    """Return the columns of processed.parquet, and its rows group by group."""
    import numpy as np
    import pyarrow as pa

    from data_ingestion.row_groups import map_groups
    from data_ingestion.splitter import SIDES
    from data_ingestion.stream_encoder import StreamEncoder

    encoder = StreamEncoder(prepared.learnt.encoder, prepared.learnt.target_means)
    target = raw.schema.field(contract.target).type if contract.is_classification else pa.float64()
    split = pa.dictionary(pa.int32(), pa.string())
    encoded = zip(encoder.names, encoder.list_types(raw.schema), strict=True)
    schema = pa.schema([("row_id", pa.int64()), ("split", split), *encoded, ("target", target)])
    names = pa.array(SIDES)

    def encode_group(start: int, table: pa.Table) -> pa.Table:
        sides, folds = prepared.scan.find_places(start, table.num_rows)
        columns = [
            pa.array(np.arange(start, start + table.num_rows)),
            pa.DictionaryArray.from_arrays(pa.array(sides, pa.int32()), names),
            *encoder.encode(table, folds),
            table[contract.target].cast(target),
        ]
        return pa.table(columns, schema=schema)

    return schema, map_groups(raw, [*encoder.features, contract.target], encode_group, "encoding")


def check_leaks(leaks: "Sequence[Finding]", strict: bool) -> None:
    """Raise when there are findings and nobody is to go on with them."""
    if leaks and strict:
        more = f" (+{len(leaks) - 1} more)" if len(leaks) > 1 else ""
        raise PipelineError(
            f"--strict stops at a sign of a leak: {leaks[0].message}{more}. To go on, {leaks[0].action}; or leave out "
            "--strict."
        )


def describe_rows(prepared: Prepared, leaks: "Sequence[Finding]", params: PreprocessParams) -> list[str]:
    """Return the lines that tell what was done."""
    from data_ingestion.encoding_report import describe_encoding

    *first, last = [f"{count:,} {side}" for side, count in prepared.count_rows().items()]
    lines = [f"split {params.split}: {', '.join(first)} and {last} rows", *describe_encoding(prepared.encoding)]
    repeats = prepared.scan.count_repeats()
    if repeats:
        about = "about " if prepared.scan.share < 1 else ""
        lines.append(f"  {about}{repeats:,} rows repeat another one, ignored columns apart")
    if prepared.n_learnt_from < len(prepared.scan.sides):
        lines.append(f"  learnt from a sample of {prepared.n_learnt_from:,} rows")
    for finding in leaks:
        lines += [f"  leak? {finding.message}", f"        {finding.action}"]
    return lines


def import_encoder() -> None:
    """Import in a thread of its own what takes a second and is wanted after the first pass over the rows."""
    with suppress(ImportError):  # said by the thread that cannot go on without it
        for name in ("encoding_report", "leaks", "stream_encoder"):
            import_module(f"data_ingestion.{name}")


def preprocess(workspace: Workspace, params: PreprocessParams) -> None:
    """Read raw.parquet, split and encode it, and write the outputs together."""
    contract, _ = contracts.read_contract(workspace.schema)
    lineage = Lineage(
        stage="data_preprocessor",
        inputs={"raw.parquet": files.sha256_input(workspace.raw, contracts.LOADER), "schema": contract.fingerprint()},
        params=params.effective(),
        code=files.sha256_code(["data_ingestion"], LIBRARIES),
    )
    if params.if_changed and files.is_current(workspace.processed, lineage):
        print("data/processed.parquet is up to date with data/raw.parquet")
        return
    Thread(target=import_encoder, daemon=True).start()
    with files.open_parquet(workspace.raw, contracts.LOADER, with_levels=True) as raw:
        contracts.check_raw(workspace.raw, raw.schema.names, raw.lineage, contract)
        prepared = prepare_rows(raw, contract, params)
        leaks = write_outputs(workspace, raw, contract, prepared, params, lineage)
    print("\n".join(describe_rows(prepared, leaks, params)))
    print(
        f"wrote data/processed.parquet ({len(prepared.scan.sides):,} rows), data/encoder.pkl, data/encoding.json, "
        "data/leaks.json"
    )


def write_outputs(
    workspace: Workspace,
    raw: "ParquetSource",
    contract: Contract,
    prepared: Prepared,
    params: PreprocessParams,
    lineage: Lineage,
) -> "list[Finding]":
    """Encode the rows, and write all outputs together, last the one that vouches for the others; return the leaks."""
    from data_ingestion.pickling import dump_pickle

    with ThreadPoolExecutor(1) as aside, files.commit() as commit:
        audit = aside.submit(audit_rows, prepared, contract, params.seed)
        outputs = {
            "encoder.pkl": commit.write(workspace.encoder, lambda file: dump_pickle(prepared.learnt.encoder, file)),
            "encoding.json": commit.write_json(workspace.encoding, prepared.encoding),
        }
        schema, groups = encode_groups(raw, contract, prepared)
        with commit.open_parquet(workspace.processed, schema) as sink:
            for table in groups:
                sink.write(table)
            leaks = audit.result()
            check_leaks(leaks, params.strict)
            findings = {"findings": [finding.to_dict() for finding in leaks]}
            outputs["leaks.json"] = commit.write_json(workspace.leaks, findings)
            sink.close(replace(lineage, outputs=outputs, rows={**raw.lineage.rows, **prepared.count_rows()}))
    return leaks


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(PreprocessParams, argv, __doc__ or "")
    with files.open_workspace(params.root) as workspace:
        preprocess(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
