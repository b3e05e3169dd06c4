"""Score a whole file with the saved model: every row gets what the API would answer, and keeps its columns.

Reads a CSV, Parquet or Arrow file (packed or not) and the model folder; writes the rows with their predictions as CSV,
Parquet or Arrow, and beside them <output stem>.rejected.csv, the rows that the model's contract refuses. A run that was
cut short goes on where it stopped when the same command is given again.

    python app/score_file.py --input new.csv --output scored.parquet
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_ingestion.handoff import REPOSITORY, PipelineError, Workspace, run_stage
from data_ingestion.params import suggest


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports its errors like the rest of the pipeline."""

    def error(self, message: str) -> NoReturn:
        raise PipelineError(f"{message}. See --help.")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--input", required=True, metavar="FILE", help="the rows to score")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="where they go: .csv, .parquet, .arrow or .feather"
    )
    parser.add_argument("--separator", metavar="TEXT", help="field separator of the input (default: detect it)")
    parser.add_argument("--encoding", metavar="TEXT", help="of the input, such as latin-1 (default: UTF-8 or UTF-16)")
    parser.add_argument(
        "--model-dir", type=Path, metavar="PATH", help="the model folder (default: MODEL_DIR, else models/ of the root)"
    )
    parser.add_argument(
        "--root", type=Path, metavar="PATH", help=f"folder of models/ (default: PIPELINE_ROOT, else {REPOSITORY})"
    )
    return parser


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags.

    Raises
    ------
    PipelineError : one is missing, wrong, or unknown; the nearest name is offered
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    known = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    for word in words:
        name = word.split("=")[0]
        if name.startswith("--") and name not in known:
            raise PipelineError(f'unknown flag "{name}".{suggest(name, known)} See --help.')
    flags = parser.parse_args(words)
    if flags.separator is not None and len(flags.separator) != 1:
        raise PipelineError(f'--separator expects one character, got "{flags.separator}". See --help.')
    flags.root = (flags.root or Path(os.environ.get("PIPELINE_ROOT") or REPOSITORY)).resolve()
    given = os.environ.get("MODEL_DIR")
    flags.model_dir = (flags.model_dir or (Path(given) if given else Workspace(flags.root).models)).resolve()
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Score a file; see the module's description."""
    flags = parse_flags(argv)
    try:
        from app.scoring.run import Job, score_file
    except ModuleNotFoundError as err:  # as in the image of the API, which reads no files
        where = f"{err.name} is not installed in {sys.prefix}"
        raise PipelineError(f"{where}, and scoring a file needs it. Install requirements.txt.") from err
    job = Job(flags.input, flags.output, flags.model_dir, flags.root, flags.separator, flags.encoding)
    print("\n".join(score_file(job)))


if __name__ == "__main__":
    sys.exit(run_stage(main))
