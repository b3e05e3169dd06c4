"""What a run of scoring keeps while it works, in a hidden folder beside its output, so that the next can go on."""

import glob
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from data_ingestion.handoff import EXIT_BUSY, PipelineError, check_writable, commit
from data_ingestion.validation import Reject


class Work:
    """The finished blocks of one output, in their order.

    Parameters
    ----------
    output : the file that they will be
    identity : what they depend on, as plain values; what an earlier run left is removed unless it has the same
    """

    def __init__(self, output: Path, identity: Mapping[str, object]) -> None:
        self._folder = _beside(output, "scoring")
        self._state = self._folder / "state.json"
        known = self._read_state()
        if known is None or known.get("identity") != identity:
            self.remove()
            moment = datetime.now(UTC).replace(microsecond=0).isoformat()
            known = {"identity": dict(identity), "scored_at": moment}
            with commit() as files:
                files.write_json(self._state, known)
        self.scored_at = datetime.fromisoformat(str(known["scored_at"]))
        self.finished = 0
        while self._part(self.finished).exists():
            self.finished += 1
        self.resumed = self.finished

    def keep(self, part: bytes, rows: int, rejects: Sequence[Reject], emptied: Mapping[str, int]) -> None:
        """Keep the next block: its rows, how many they are, and what was not taken over."""
        facts = {"rows": rows, "emptied": dict(emptied), "rejects": [asdict(reject) for reject in rejects]}
        with commit() as files:
            files.write_bytes(self._facts(self.finished), json.dumps(facts).encode())
            files.write_bytes(self._part(self.finished), part)  # last, for it says that the block is finished
        self.finished += 1

    def iterate_parts(self) -> Iterator[Path]:
        """Yield the files that hold the rows."""
        return (self._part(number) for number in range(self.finished))

    def iterate_facts(self) -> Iterator[tuple[int, dict[str, int], list[Reject]]]:
        """Yield how many rows each block has, what was emptied, and the rejects."""
        for number in range(self.finished):
            facts = json.loads(self._facts(number).read_bytes())
            yield facts["rows"], facts["emptied"], [Reject(**reject) for reject in facts["rejects"]]

    def remove(self) -> None:
        """Remove all that was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read_state(self) -> dict[str, object] | None:
        try:
            state = json.loads(self._state.read_bytes())
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) and "scored_at" in state else None

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:06}.part"

    def _facts(self, number: int) -> Path:
        return self._folder / f"{number:06}.json"


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(f".{output.name}.{ending}")


@contextmanager
def lock_output(output: Path, others: Sequence[Path] = ()) -> Iterator[None]:
    """Hold an output for one run at a time, and clear what a killed one left half written.

    Parameters
    ----------
    output : the file
    others : files that are written with it

    Raises
    ------
    PipelineError : another process holds it (exit code 75)
    """
    from filelock import FileLock, Timeout

    check_writable([output.parent])
    lock = FileLock(_beside(output, "lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout as err:
        message = f"{output} is being written by another run. Wait for it to end, or name another --output."
        raise PipelineError(message, EXIT_BUSY) from err
    try:
        for path in (output, *others):
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                leftover.unlink(missing_ok=True)
        yield
    finally:
        with suppress(PermissionError):  # of Windows, where the lock removes its file by itself
            _beside(output, "lock").unlink(missing_ok=True)  # FileLock takes no lock on a file that is gone
        lock.release()
