"""Split data/raw.parquet, fit the encoder on the train rows, and write data/processed.parquet and data/encoder.pkl.

`processed.parquet` holds row_id (the row's place in raw.parquet), split (train or test), the encoded features and the
target.

    python data_ingestion/data_preprocessor.py --split hash --test-size 0.2
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
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

LIBRARIES = ("pyarrow", "numpy", "pandas", "scikit-learn")


class PreprocessParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "preprocess"

    split: Strategy = Field("hash", description="how to choose the test rows")
    split_column: str | None = Field(None, description="column of --split group or time; none: the one with that role")
    test_size: float = Field(0.2, gt=0, lt=1, description="share of test rows")
    min_frequency: int = Field(5, ge=1, description="categories with fewer train rows share one code")
    max_levels: int = Field(50, ge=1, le=250, description="categories with more levels become target means")


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


def preprocess(workspace: Workspace, params: PreprocessParams) -> None:
    """Read raw.parquet, split and encode it, and write the two outputs together."""
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
    import pandas as pd

    from data_ingestion.encoder import build_encoder
    from data_ingestion.pickling import dump_pickle
    from data_ingestion.splitter import split_rows

    raw, made_by = files.read_parquet(workspace.raw, contracts.LOADER)
    contracts.check_raw(workspace.raw, raw.column_names, made_by, contract)
    is_test = pd.Series(split_rows(raw, contract, params.split, params.test_size, params.seed, params.split_column))
    X_train = raw.select(list(contract.features)).to_pandas()[~is_test]
    target_means = find_target_means(X_train, contract, params.max_levels)
    encoder = build_encoder(describe_features(contract), target_means, contract.task, params.min_frequency, params.seed)
    processed = encode_rows(encoder, raw, contract, is_test)
    rows = {**made_by.rows, "train": int((~is_test).sum()), "test": int(is_test.sum())}
    with files.commit() as commit:
        digest = commit.write(workspace.encoder, lambda file: dump_pickle(encoder, file))
        lineage = replace(lineage, outputs={"encoder.pkl": digest}, rows=rows)
        commit.write_parquet(workspace.processed, processed, lineage)
    print(f"split {params.split}: {rows['train']:,} train and {rows['test']:,} test rows")
    print(f"  {len(contract.features)} features became {processed.num_columns - 3} encoded columns")
    if target_means:
        print(f"  more than {params.max_levels} levels, so target means: {contracts.join_names(target_means)}")
    print(f"wrote data/processed.parquet ({processed.num_rows:,} rows), data/encoder.pkl")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(PreprocessParams, argv, __doc__ or "")
    with files.open_workspace(params.root) as workspace, show_progress("preprocessing"):
        preprocess(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
