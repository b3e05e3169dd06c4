"""Infer the contract of a source: guess, read, confirm, and read again where the guess was wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from data_ingestion import inference, loading
from data_ingestion import schema as contracts
from data_ingestion.kinds import Guess
from data_ingestion.schema import MISSING, WHOLE_FILE, Column, Contract, join_names
from data_ingestion.source_reader import SourceReader
from data_ingestion.tally import check_faults, check_row_count, check_target
from data_ingestion.typed_blocks import Layout

MAX_READINGS = 6  # each widens a kind, and there is not much to widen


@dataclass
class Inference:
    """What is believed of a source so far.

    Parameters
    ----------
    readers : its files
    source : its name
    peek : a few pieces of it
    guesses : the kind of every column
    target, task : what to predict, as asked for
    max_rejected : the share of rows, and of a column's values, that may be at fault
    min_rows : how many rows there must be
    current : the contract on disk, in which what was edited stands; None when there is none, or nothing was edited
    edited : which of its columns
    checksums : of its columns as they were inferred, by which an edit is known
    """

    readers: Sequence[SourceReader]
    source: str
    peek: loading.Peek
    guesses: dict[str, Guess]
    target: str
    task: str
    max_rejected: float
    min_rows: int
    current: Contract | None = None
    edited: list[str] = field(default_factory=list)
    checksums: Mapping[str, str] = field(default_factory=dict)
    useless: set[str] = field(default_factory=set)  # faults in them reject no row
    given_up: set[tuple[str, tuple[object, ...]]] = field(default_factory=set)  # columns, and ways to read them

    def build_layout(self) -> Layout:
        """Return how to read the source by the present guesses."""
        contract = inference.build_guess(self.guesses, self.source, self.target)
        columns = contract.columns | {
            name: contract.columns[name].model_copy(update={"role": "ignored"}) for name in self.useless
        }
        contract = contract.model_copy(update={"columns": columns})
        return Layout(self._with_edits(contract), loading.guess_levels(self.peek.texts), finds_zeros=True)

    def read(
        self, layout: Layout, outputs: loading.Outputs | None, progress: loading.Progress | None
    ) -> loading.Reading:
        """Read the source once."""
        return loading.read_sources(self.readers, self.peek.separator, layout, True, outputs, progress)

    def revise(self, reading: loading.Reading) -> bool:
        """Take in what a reading found; return whether the source must be read again."""
        open_ = {name: guess for name, guess in self.guesses.items() if name not in self.edited}
        fixed = {name: guess for name, guess in self.guesses.items() if name in self.edited}
        confirmed = {
            name: inference.confirm_column(name, guess, reading.profile, self.max_rejected, self._task_of(name))
            for name, guess in open_.items()
        }
        confirmed = {name: self._settle(name, open_[name], found) for name, found in confirmed.items()}
        changed = any(confirmed[name].way_to_read != guess.way_to_read for name, guess in open_.items())
        self.guesses = {name: confirmed.get(name) or fixed[name] for name in self.guesses}
        if changed:
            return True
        useless = {
            name
            for name, guess in open_.items()
            if name != self.target
            and reading.profile.facts[name].faults
            and inference.describe_column(name, confirmed[name].column, reading.profile, False).role == "ignored"
        }
        is_new = not useless <= self.useless
        self.useless |= useless
        return is_new

    def conclude(self, reading: loading.Reading) -> tuple[Contract, dict[str, str], list[str]]:
        """Return the contract, the checksums of its columns as inferred, and remarks.

        Raises
        ------
        PipelineError : too many rows are at fault or too few are left, or the target's values allow no task
        """
        check_faults(reading.tally, self.source, self.max_rejected)
        check_row_count(reading.tally.rows, self.source, self.min_rows)
        contract, notes = inference.complete_contract(
            self.guesses, reading.profile, self.source, self.target, self.task, self.edited
        )
        update = {"separator": self.peek.separator, "encoding": self.readers[0].source.encoding}
        contract = contract.model_copy(update=update)
        inferred = contracts.checksum_contract(contract)
        inferred |= {name: self.checksums.get(name, "") for name in self.edited if name in self.guesses}
        notes += inference.describe_words_for_missing(self.peek.raw)
        notes += inference.describe_texts_read(self.readers[0].list_texts(), contract)
        if self.current is not None and self.edited:
            contract, kept = inference.merge_edits(contract, self.current, self.edited)
            contract = contracts.parse_contract(contract.to_dict(), "data/schema.yaml, edited as it is")
            dropped = [name for name in self.edited if name not in kept]
            notes += [f"schema.yaml: kept as edited by hand: {join_names(kept)}"] if kept else []
            notes += (
                [f"schema.yaml: edits given up, for they do not fit here: {join_names(dropped)}"] if dropped else []
            )
        check_target(reading.profile.count_distinct(self.target), self.target, self.source)
        return contract, inferred, notes

    def _settle(self, name: str, guess: Guess, found: Guess) -> Guess:
        """Return how a column is read from now on: never again as it was given up, but as texts."""
        if found.way_to_read == guess.way_to_read:
            return found
        self.given_up.add((name, guess.way_to_read))
        texts = Guess(Column(kind="category"), "kept as text: not all values read as one kind")
        if found.way_to_read == texts.way_to_read or (name, found.way_to_read) not in self.given_up:
            return found
        return guess if guess.way_to_read == texts.way_to_read else texts

    def _task_of(self, name: str) -> str | None:
        return self.task if name == self.target else None

    def _with_edits(self, contract: Contract) -> Contract:
        if self.current is None or not self.edited:
            return contract
        merged, _ = inference.merge_edits(contract, self.current, self.edited)
        return merged


def start_inference(
    readers: Sequence[SourceReader],
    source: str,
    separator: str | None,
    current: tuple[Contract, dict[str, str]] | None,
    target: str,
    task: str,
    max_rejected: float,
    min_rows: int,
) -> Inference:
    """Return first guesses, from a few pieces of the source.

    Raises
    ------
    PipelineError : the target is not a column, or the source is no CSV
    """
    edited = contracts.find_edited(*current) if current is not None else []
    missing = current[0].missing if current is not None and WHOLE_FILE in edited else list(MISSING)
    peek = loading.peek_sources(readers, separator, missing)
    inference.check_is_column(target, list(peek.header), source)
    guesses = inference.guess_columns(peek.texts, target, task, max_rejected)
    if current is None:
        return Inference(readers, source, peek, guesses, target, task, max_rejected, min_rows)
    stands, checksums = current
    # What is edited is read, and described, as it was edited to be; a target stays one, and nothing else becomes one.
    mine = {name: stands.columns[name] for name in edited if name in guesses and name in stands.columns}
    guesses |= {name: Guess(c) for name, c in mine.items() if (c.role == "target") == (name == target)}
    return Inference(readers, source, peek, guesses, target, task, max_rejected, min_rows, stands, edited, checksums)
