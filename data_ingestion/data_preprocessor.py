"""Split data/raw.parquet, look for leaks, fit the encoder on the train rows, and encode.

Writes data/processed.parquet, data/encoder.pkl and data/leaks.json. `processed.parquet` holds row_id (the row's place
in raw.parquet), split (train or test), the encoded features and the target.

    python data_ingestion/data_preprocessor.py --split hash --test-size 0.2
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import Field

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.params import StageParams, parse_params
from data_ingestion.progress import show_progress
from data_ingestion.schema import Contract, Strategy

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from sklearn.pipeline import Pipeline

    from data_ingestion.leaks import Finding

LIBRARIES = ("pyarrow", "numpy", "pandas", "scikit-learn")


class PreprocessParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "preprocess"

    split: Strategy = Field("hash", description="how to choose the test rows")
    split_column: str | None = Field(None, description="column of --split group or time; none: the one with that role")
    test_size: float = Field(0.2, gt=0, lt=1, description="share of test rows")
    min_frequency: int = Field(5, ge=1, description="categories with fewer train rows share one code")
    max_levels: int = Field(50, ge=1, le=250, description="categories with more levels become target means")
    strict: bool = Field(False, description="stop at a sign that the target has leaked into the features")


@dataclass(frozen=True)
class Prepared:
    """The outcome of this stage.

    Parameters
    ----------
    table : row_id, split, the encoded features and the target of every row
    encoder : fitted on the train rows
    target_means : the categories that became target means
    leaks : what looks like a leak
    rows : how many train and how many test
    """

    table: "pa.Table"
    encoder: "Pipeline"
    target_means: list[str]
    leaks: "list[Finding]"
    rows: dict[str, int]


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
            "categories": column.categories or [],
        }
        for name, column in contract.features.items()
    ]


def find_target_means(X_train: "pd.DataFrame", contract: Contract, max_levels: int) -> list[str]:
    """Return the categories with more levels among the train rows than codes are good for."""
    return [
        name
        for name, column in contract.features.items()
        if column.kind == "category" and X_train[name].nunique() > max_levels
    ]


def encode_rows(encoder: "Pipeline", table: "pa.Table", contract: Contract, is_test: "pd.Series") -> "pa.Table":
    """Fit the encoder on the train rows and return all rows encoded, in the order of `table`.

    Parameters
    ----------
    encoder : unfitted; fitted here
    table : the typed rows of the source
    contract : its columns
    is_test : (n_rows,) bool
    """
    import pandas as pd
    import pyarrow as pa

    X = table.select(list(contract.features)).to_pandas()
    y = table[contract.target].to_pandas()
    try:
        train = encoder.fit_transform(X[~is_test], y[~is_test])
        encoded = pd.concat([train, encoder.transform(X[is_test])]).sort_index()
    except ValueError as err:
        raise PipelineError(f"data/raw.parquet: {err}. Mend data/schema.yaml.") from err
    columns = {name: pa.array(encoded[name].to_numpy(dtype="float64")) for name in encoded.columns}
    target = table[contract.target].combine_chunks()
    return pa.table(
        {
            "row_id": pa.array(range(table.num_rows), pa.int64()),
            "split": pa.array(is_test.map({True: "test", False: "train"})).dictionary_encode(),
            **columns,
            "target": target.cast(pa.float64()) if not contract.is_classification else target,
        }
    )


def prepare_rows(raw: "pa.Table", contract: Contract, params: PreprocessParams) -> Prepared:
    """Split the rows, look for leaks, and encode."""
    import pandas as pd

    from data_ingestion.encoder import build_encoder
    from data_ingestion.leaks import find_leaks
    from data_ingestion.splitter import split_rows

    is_test = pd.Series(split_rows(raw, contract, params.split, params.test_size, params.seed, params.split_column))
    frame = raw.to_pandas()
    target_means = find_target_means(frame[~is_test], contract, params.max_levels)
    encoder = build_encoder(describe_features(contract), target_means, contract.task, params.min_frequency, params.seed)
    return Prepared(
        table=encode_rows(encoder, raw, contract, is_test),
        encoder=encoder,
        target_means=target_means,
        leaks=find_leaks(frame, contract, is_test.to_numpy(), params.seed),
        rows={"train": int((~is_test).sum()), "test": int(is_test.sum())},
    )


def check_leaks(leaks: "Sequence[Finding]", strict: bool) -> None:
    """Raise when there are findings and nobody is to go on with them."""
    if leaks and strict:
        more = f" (+{len(leaks) - 1} more)" if len(leaks) > 1 else ""
        raise PipelineError(
            f"--strict stops at a sign of a leak: {leaks[0].message}{more}. To go on, {leaks[0].action}; or leave out "
            "--strict."
        )


def describe_rows(prepared: Prepared, contract: Contract, params: PreprocessParams) -> list[str]:
    """Return the lines that tell what was done."""
    lines = [
        f"split {params.split}: {prepared.rows['train']:,} train and {prepared.rows['test']:,} test rows",
        f"  {contracts.count_of(len(contract.features), 'feature')} became "
        f"{contracts.count_of(prepared.table.num_columns - 3, 'encoded column')}",
    ]
    if prepared.target_means:
        names = contracts.join_names(prepared.target_means)
        lines.append(f"  more than {params.max_levels} levels, so target means: {names}")
    for finding in prepared.leaks:
        lines += [f"  leak? {finding.message}", f"        {finding.action}"]
    return lines


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
    from data_ingestion.pickling import dump_pickle

    raw, made_by = files.read_parquet(workspace.raw, contracts.LOADER)
    contracts.check_raw(workspace.raw, raw.column_names, made_by, contract)
    prepared = prepare_rows(raw, contract, params)
    check_leaks(prepared.leaks, params.strict)
    with files.commit() as commit:
        findings = {"findings": [finding.to_dict() for finding in prepared.leaks]}
        outputs = {
            "encoder.pkl": commit.write(workspace.encoder, lambda file: dump_pickle(prepared.encoder, file)),
            "leaks.json": commit.write_json(workspace.leaks, findings),
        }
        lineage = replace(lineage, outputs=outputs, rows={**made_by.rows, **prepared.rows})
        commit.write_parquet(workspace.processed, prepared.table, lineage)
    print("\n".join(describe_rows(prepared, contract, params)))
    print(f"wrote data/processed.parquet ({prepared.table.num_rows:,} rows), data/encoder.pkl, data/leaks.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(PreprocessParams, argv, __doc__ or "")
    with files.open_workspace(params.root) as workspace, show_progress("preprocessing"):
        preprocess(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
