"""Scoring of a whole file: blocks are scored by several threads, kept as they are finished, and joined in the end.

Memory is bounded by a few blocks a thread. The output is the same for any number of threads, and for a run that was cut
short and taken up again.
"""

import csv
import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app.scoring.blocks import ScoredBlock, score_block
from app.scoring.formats import Format, encode_part, find_format, join_parts
from app.scoring.plan import SHOWN, Plan, plan_scoring
from app.scoring.work import Work, lock_output
from data_ingestion import csv_reader
from data_ingestion.csv_reader import Block, read_blocks
from data_ingestion.handoff import PipelineError, Workspace, commit, sha256_code
from data_ingestion.loading import count_workers
from data_ingestion.progress import show_transfer
from data_ingestion.schema import count_of
from data_ingestion.source_reader import SourceReader
from data_ingestion.sources import STDIN, Source, find_sources
from data_ingestion.validation import REJECTED_SCHEMA, Reject
from models.artifact import SavedModel, ScorerModel, load_scorer_model

LIBRARIES = ("pyarrow", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """What to score, with what, and where it goes.

    Parameters
    ----------
    given : the input as the user names it
    output : its ending says in what form
    model_folder, root : where the model is, and the root that relative names may be below
    separator, encoding : of the input; None finds them out
    """

    given: str
    output: Path
    model_folder: Path
    root: Path
    separator: str | None = None
    encoding: str | None = None

    @property
    def rejected(self) -> Path:
        """The rows set aside."""
        return self.output.with_name(f"{self.output.stem}.rejected.csv")


@dataclass
class Tally:
    """What became of the rows."""

    rows: int
    rejected: int
    first_rejects: list[Reject]
    emptied: dict[str, int]


def score_file(job: Job) -> list[str]:
    """Score a file, and return what there is to say of it.

    Raises
    ------
    PipelineError : the model, the input or a flag is not as expected, no row can be scored, or another run is at it
    """
    format = find_format(job.output)
    with _naming_flags():
        source = find_input(job)
        with lock_output(job.output, [job.rejected]):
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # blocks are scored side by side: more only get in the way
            model = load_scorer_model(job.model_folder)
            reader = SourceReader(source)
            work = Work(job.output, describe_run(job, source, model))
            try:
                plan, separator = score_blocks(reader, job.separator, model, work, format)
                tally = count_rows(work)
                check_any(tally, source.name)
                write_output(work, plan, separator, format, job)
            except PipelineError:
                if not any(rows for rows, _, _ in work.iterate_facts()):  # nothing to go on from
                    work.remove()
                raise
            work.remove()
    return describe_outcome(job, model, reader.notes, work.resumed, tally)


@contextmanager
def _naming_flags() -> Iterator[None]:
    """Turn the loader's name of the flag for the input into the one here."""
    try:
        yield
    except PipelineError as err:
        raise PipelineError(str(err).replace("--source", "--input"), err.exit_code) from err


def find_input(job: Job) -> Source:
    """Return the one file to score.

    Raises
    ------
    PipelineError : it is not there, is empty, is several, is no file, or is the output
    """
    if job.given == STDIN or "://" in job.given:
        raise PipelineError(f"--input {job.given} is no file, and a run cut short reads it again. Save it as a file.")
    found, _ = find_sources(job.given, Workspace(job.root))
    if len(found) > 1:
        raise PipelineError(f"--input {job.given} is {len(found)} files, expected one. Score them one by one.")
    if found[0].path.resolve() in (job.output.resolve(), job.rejected.resolve()):
        raise PipelineError(f"--output {job.output} would replace the input. Name another file.")
    if job.output.is_dir():
        raise PipelineError(f"--output {job.output} is a folder. Name a file.")
    return replace(found[0], encoding=job.encoding)


def describe_run(job: Job, source: Source, model: SavedModel | ScorerModel) -> dict[str, object]:
    """Return what the finished blocks depend on: nothing else may go on from them."""
    return {
        "model_version": model.manifest.model_version,
        "model_files": model.manifest.files,
        "input": str(source.path),
        "size": source.size,
        "modified_ns": source.modified_ns,
        "separator": job.separator,
        "encoding": job.encoding,
        "block_bytes": csv_reader.BLOCK_BYTES,
        "code": sha256_code(["app", "data_ingestion", "models"], LIBRARIES),
    }


def score_blocks(
    reader: SourceReader, separator: str | None, model: SavedModel | ScorerModel, work: Work, format: Format
) -> tuple[Plan, str]:
    """Score the blocks that are not finished yet, and return how, with the separator of the input."""
    workers = count_workers()
    plan: Plan | None = None
    with show_transfer("scoring", reader.source.size) as progress, ThreadPoolExecutor(workers) as pool:
        running: deque[Future[tuple[ScoredBlock, bytes]]] = deque()
        rows = 0

        def put_away() -> None:
            nonlocal rows
            scored, part = running.popleft().result()
            work.keep(part, len(scored.rows), scored.rejects, scored.emptied)
            rows += len(scored.rows)

        sign = "," if reader.is_table else separator
        pieces = reader.iterate(lambda done: progress(done, rows))
        try:
            for number, block in enumerate(read_blocks(pieces, sign, reader.source.name, csv_reader.BLOCK_BYTES)):
                if plan is None:
                    plan, sign = plan_scoring(model, block, find_typed(reader), work.scored_at), block.separator
                if number < work.resumed:
                    continue
                running.append(pool.submit(_work, block, plan, format))
                if len(running) > workers + 1:
                    put_away()
            while running:
                put_away()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    assert plan is not None  # a file without rows is refused
    assert sign is not None
    return plan, sign


def find_typed(reader: SourceReader) -> frozenset[str]:
    """Return the columns that a table holds as other than texts; those of a CSV are all texts."""
    if not reader.is_table:
        return frozenset()
    with reader.source.path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
        schema = pq.read_schema(file) if is_parquet else pa.ipc.open_file(file).schema
    kinds = {f.name: f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in schema}
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return frozenset(name for name, kind in kinds.items() if not any(is_text(kind) for is_text in texts))


def _work(block: Block, plan: Plan, format: Format) -> tuple[ScoredBlock, bytes]:
    """Score one block; runs in a thread."""
    scored = score_block(block, plan)
    return scored, encode_part(scored, plan, format)


def count_rows(work: Work) -> Tally:
    """Return what became of the rows of all blocks."""
    tally = Tally(0, 0, [], {})
    for rows, emptied, rejects in work.iterate_facts():
        tally.rows += rows
        tally.rejected += len(rejects)
        tally.first_rejects += rejects[: SHOWN - len(tally.first_rejects)]
        for name, count in emptied.items():
            tally.emptied[name] = tally.emptied.get(name, 0) + count
    return tally


def check_any(tally: Tally, source: str) -> None:
    """Raise when no row can be scored."""
    if not tally.rows:
        raise PipelineError(
            f"{source}: all {count_of(tally.rejected, 'row')} were refused, and nothing was written. "
            f"{_list_first(tally)}. Mend them, or train the model on such rows."
        )


def write_output(work: Work, plan: Plan, separator: str, format: Format, job: Job) -> None:
    """Write the rows set aside and the output, which appear together."""
    with commit() as files:
        with files.open(job.rejected) as file:
            names = [name for name in REJECTED_SCHEMA.names if name != "id"]
            file.write(_format_record(names))
            for _, _, rejects in work.iterate_facts():
                for reject in rejects:
                    file.write(_format_record([getattr(reject, name) for name in names]))
        with files.open(job.output) as file:
            join_parts(work.iterate_parts(), plan, separator, format, file)


def _format_record(values: list[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
    return text.getvalue().encode()


def describe_outcome(
    job: Job, model: SavedModel | ScorerModel, notes: list[str], resumed: int, tally: Tally
) -> list[str]:
    """Return what there is to say, the output last."""
    lines = list(notes)
    if resumed:
        lines.append(f"went on after {count_of(resumed, 'block')} of an earlier run")
    if tally.emptied and find_format(job.output) != "csv":
        counts = ", ".join(f'"{name}" {count:,}' for name, count in tally.emptied.items())
        lines.append(f"left empty, for they are not of their column's kind: {counts}")
    if tally.rejected:
        total = count_of(tally.rows + tally.rejected, "row")
        lines.append(f"rejected {tally.rejected:,} of {total}, see {job.rejected}: {_list_first(tally)}")
    return [*lines, f"wrote {job.output} ({count_of(tally.rows, 'row')}), model {model.manifest.model_version}"]


def _list_first(tally: Tally) -> str:
    shown = "; ".join(f"line {reject.line}: {reject.reason}" for reject in tally.first_rejects)
    more = f" (+{tally.rejected - SHOWN:,} more)" if tally.rejected > SHOWN else ""
    return shown + more
