"""Check, without a network, that the lock files are in step with their .in files.

Reads requirements.in, requirements-serve.in, the .in files of the benchmarks, and the lock files compiled from them;
writes nothing.

    python ci_cd/check_locks.py
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAIRS = {"requirements.in": "requirements.txt", "requirements-serve.in": "requirements-serve.txt"}
# Environments of their own, not installed here, in which other versions may stand.
PEERS = tuple(
    f"ci_cd/benchmarks/requirements-{name}.in" for name in ("peers", "models", "autogluon", "api", "mlserver")
)


@dataclass
class Pin:
    """One entry of a lock file.

    Parameters
    ----------
    requirement : name, exact version and marker
    hashes : sha256 sums of the files that may be installed
    via : what asked for it: packages by name, and .in files as "-r name"
    """

    requirement: Requirement
    hashes: list[str] = field(default_factory=list)
    via: set[str] = field(default_factory=set)

    @property
    def version(self) -> str:
        """The pinned version, "" when there is none."""
        match = re.fullmatch(r"==([^*,]+)", str(self.requirement.specifier))
        return match[1] if match else ""


def read_inputs(path: Path) -> dict[str, Requirement]:
    """Return the requirements of an .in file by name, with those of the files it includes."""
    found: dict[str, Requirement] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text.startswith("-r "):
            found |= read_inputs(path.parent / text[3:].strip())
        elif text:
            requirement = Requirement(text)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def read_lock(path: Path) -> dict[str, list[Pin]]:
    """Return the entries of a lock file by name; a name has more than one where versions differ by platform."""
    pins: dict[str, list[Pin]] = {}
    last: Pin | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip().removesuffix("\\").strip()
        if text.startswith("--hash=") and last is not None:
            last.hashes.append(text.removeprefix("--hash="))
        elif text.startswith("#") and last is not None:
            via = re.sub(r"^#\s*(via\s*)?", "", text).split(" (")[0]
            if via and not via.startswith("-c "):
                last.via.add(via)
        elif text and not text.startswith("#"):
            last = Pin(Requirement(text))
            pins.setdefault(canonicalize_name(last.requirement.name), []).append(last)
    return pins


def check_inputs(inputs: dict[str, Requirement], lock: dict[str, list[Pin]]) -> Iterator[str]:
    """Yield what the .in files ask for and the lock file does not hold, and the other way round."""
    for name, requirement in inputs.items():
        if name not in lock:
            yield f"{name} is asked for and not locked"
        for pin in lock.get(name, []):
            if not requirement.specifier.contains(pin.version, prereleases=True):
                yield f"{name} is locked at {pin.version}, and {requirement.specifier} is asked for"
    for name, pins in lock.items():
        for via in sorted(set().union(*(pin.via for pin in pins))):
            if via.startswith("-r ") and name not in inputs:
                yield f"{name} is locked and no longer asked for"
            elif not via.startswith("-r ") and canonicalize_name(via) not in lock:
                yield f"{name} is locked for {via}, which is not locked"


def check_closure(inputs: dict[str, Requirement], lock: dict[str, list[Pin]]) -> Iterator[str]:
    """Yield what the locked packages need here and the lock file does not hold, as far as they are installed.

    The extras that the .in files ask for leave no trace in the lock file, so they are followed from here.
    """
    todo = list(inputs.values())
    seen: set[tuple[str, str]] = set()
    while todo:
        parent = todo.pop()
        for extra in ["", *sorted(parent.extras)]:
            if (canonicalize_name(parent.name), extra) in seen:
                continue
            seen.add((canonicalize_name(parent.name), extra))
            for child in _list_needs(parent.name, extra):
                pins = [p for p in lock.get(canonicalize_name(child.name), []) if _applies(p.requirement)]
                if not any(child.specifier.contains(p.version, prereleases=True) for p in pins):
                    yield f"{parent.name} needs {child.name}{child.specifier}, which is not locked"
                todo.append(child)


def _list_needs(name: str, extra: str) -> list[Requirement]:
    """Return what an installed package needs on this platform, for itself ("") or for one of its extras."""
    try:
        needs = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
    if not extra:
        return [need for need in needs if _applies(need)]
    return [need for need in needs if not _applies(need) and _applies(need, extra)]


def _applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def check_hashes(lock: dict[str, list[Pin]]) -> Iterator[str]:
    """Yield the entries without an exact version or without a sha256 sum."""
    for name, pins in lock.items():
        for pin in pins:
            if not pin.version:
                yield f"{name} has no exact version"
            if not pin.hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in pin.hashes):
                yield f"{name} has no sha256 sum"


def check_subset(part: dict[str, list[Pin]], whole: dict[str, list[Pin]]) -> Iterator[str]:
    """Yield the entries of the smaller lock file that the larger one has not, or has at another version."""
    for name, pins in part.items():
        versions = sorted(pin.version for pin in whole.get(name, []))
        for pin in pins:
            if pin.version not in versions:
                yield f"{name} is locked at {pin.version}, in requirements.txt at {', '.join(versions) or 'none'}"


def check_root(root: Path) -> list[str]:
    """Return what is wrong with the lock files of a repository, one line each."""
    faults = []
    locks = {lock: read_lock(root / lock) for lock in PAIRS.values()}
    for source, name in PAIRS.items():
        inputs, lock = read_inputs(root / source), locks[name]
        found = [*check_inputs(inputs, lock), *check_closure(inputs, lock), *check_hashes(lock)]
        faults += [f"{name}: {fault}" for fault in found]
    subset = check_subset(locks["requirements-serve.txt"], locks["requirements.txt"])
    faults += [f"requirements-serve.txt: {fault}" for fault in subset]
    for source in PEERS:
        faults += check_peers(root / source) if (root / source).exists() else []
    return faults


def check_peers(source: Path) -> list[str]:
    """Return what is wrong with a lock file of the benchmarks; what their packages need is not known here."""
    name = source.with_suffix(".txt").name
    inputs, lock = read_inputs(source), read_lock(source.with_suffix(".txt"))
    return [f"{name}: {fault}" for fault in [*check_inputs(inputs, lock), *check_hashes(lock)]]


def main() -> int:
    """Print what is wrong; exit code 1 when anything is."""
    faults = check_root(ROOT)
    for fault in faults[:5]:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        print(f"error: {len(faults)} faults in the lock files. Run: make lock", file=sys.stderr)
        return 1
    print("lock files are in step with their .in files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
