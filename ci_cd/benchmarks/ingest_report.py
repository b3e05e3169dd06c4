"""What bench_ingest.py measured, as tables: plain lines for the terminal, and a page in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from machine import describe_commit, describe_machine

TITLES = {"ingest": "CSV to typed Parquet", "preprocess": "Typed Parquet to encoded features"}
NAMES = {
    **{"ours": "ours", "duckdb": "DuckDB", "polars": "Polars", "pyarrow": "PyArrow"},
    **{"pandas": "pandas", "sklearn": "scikit-learn"},
}
HEADINGS = ("", "median s", "min s", "runs", "ours ÷ it", "peak memory")
METHOD = """\
Every run is a process of its own, start and imports included; the tools take turns, with the CSV in the page cache.
The ratio is that of the medians: below 1, ours is faster. Peak memory is the largest resident set of the process, files
that it maps into memory included. The table is made up: 14 columns of sales with ids, dates, prices, gaps, quoted texts
and categories of 5, 300 and 20,000 levels.

- **CSV to typed Parquet** (zstd). Ours is `data_loader.py --infer`: types and contract inferred over the whole file,
  every cell checked, rows at fault set aside, statistics, checksums, `fsync`. DuckDB: `COPY (FROM read_csv(…))`;
  Polars: `scan_csv().sink_parquet()`; PyArrow: `open_csv` into a `ParquetWriter`; pandas: `read_csv`, `to_parquet`.
- **Typed Parquet to encoded features** (zstd). Ours is `data_preprocessor.py`, with its look for leaks and the fitted
  encoder. The others do its encoding, written for this table alone (`peers.py`, `preprocess.sql`): split by a hash of
  the row, medians and flags for missing numbers, category codes with rare levels pooled, cross-fitted target means,
  date parts."""


@dataclass(frozen=True)
class Run:
    """One run of one tool.

    Parameters
    ----------
    seconds : wall time
    peak_bytes : the largest resident set of the process
    """

    seconds: float
    peak_bytes: int


@dataclass
class Race:
    """One contest on one CSV.

    Parameters
    ----------
    contest : ingest or preprocess
    size : of the CSV, as its flag says it
    size_bytes : the same as a number
    runs : the runs of each tool
    notes : why a tool has no figures
    """

    contest: str
    size: str
    size_bytes: int
    runs: dict[str, list[Run]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Contest and size."""
        return f"{self.contest} {self.size}"


def list_cells(race: Race) -> list[list[str]]:
    """Return a line of cells for each tool with figures; the ratio is empty where ours has none."""
    medians = {tool: median(run.seconds for run in runs) for tool, runs in race.runs.items()}
    lines = []
    for tool, runs in race.runs.items():
        ratio = f"{medians['ours'] / medians[tool]:.2f}" if "ours" in medians and tool != "ours" else ""
        least = min(run.seconds for run in runs)
        peak = max(run.peak_bytes for run in runs)
        cells = [f"{medians[tool]:.2f}", f"{least:.2f}", str(len(runs)), ratio, f"{peak / 1e6:,.0f} MB"]
        lines.append([NAMES[tool], *cells])
    return lines


def format_race(race: Race) -> str:
    """Return a race as lines for the terminal."""
    lines = [[race.title, *HEADINGS[1:]], *list_cells(race)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADINGS))]
    rows = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in lines
    ]
    notes = [f"{NAMES[tool]}: {note}" for tool, note in race.notes.items()]
    return "\n".join(["", *rows, *notes])


def format_table(race: Race) -> str:
    """Return a race as a table in Markdown with its heading."""
    lines = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *list_cells(race)]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    notes = [f"\n{NAMES[tool]}: {note}." for tool, note in race.notes.items()]
    return "\n".join([f"## {TITLES[race.contest]}, a CSV of {race.size}", "", *rows, *notes])


def format_page(races: Sequence[Race], versions: Mapping[str, str], flags: str) -> str:
    """Return the page of all races, in Markdown.

    Parameters
    ----------
    races : what was measured
    versions : of the other tools, by name
    flags : with which the benchmark was run
    """
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    command = " ".join([".venv/bin/python ci_cd/benchmarks/bench_ingest.py", flags]).strip()
    head = [
        "# How fast a CSV is read and encoded",
        f"Written by `bench_ingest.py`. To repeat: `{command}`",
        METHOD,
        f"{describe_machine()}.\n{peers}.\nOurs at {describe_commit()}, {datetime.now(UTC):%Y-%m-%d}.",
    ]
    return "\n\n".join([*head, *map(format_table, races)]) + "\n"
