"""What a hand-off was made from, by sha256: two equal lineages mean equal content."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_ingestion.workspace import REPOSITORY


@dataclass(frozen=True)
class Lineage:
    """What a hand-off was made from. Two equal lineages mean equal content: every stage is deterministic.

    Parameters
    ----------
    stage : name of the script that wrote it
    inputs : what went in, by name, as sha256
    params : the stage's effective parameters
    code : sha256 over the sources and library versions the stage runs on
    outputs : the files written beside this one in the same commit, by name, as sha256
    rows : row counts worth carrying on
    """

    stage: str
    inputs: dict[str, str]
    params: dict[str, object]
    code: str
    outputs: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def matches(self, other: "Lineage") -> bool:
        """Return whether both were made by the same stage from the same inputs, parameters and code."""
        return (self.stage, self.inputs, self.params, self.code) == (
            other.stage,
            other.inputs,
            other.params,
            other.code,
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain values that JSON can hold."""
        return asdict(self)


def sha256_bytes(content: bytes) -> str:
    """Return the sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Return the sha256 of a plain value, the same for equal values on every machine."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())


def sha256_code(folders: Sequence[str], distributions: Sequence[str] = ()) -> str:
    """Return one sha256 over the Python sources of `folders` and the installed versions of `distributions`."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    for folder in folders:
        for source in sorted([*(REPOSITORY / folder).glob("*.py"), *(REPOSITORY / folder).glob("templates/*")]):
            digest.update(source.name.encode() + b"\0" + source.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    for name in distributions:
        digest.update(f"{name}=={version(name)}\0".encode())
    return digest.hexdigest()


def has_outputs(lineage: Lineage, folder: Path) -> bool:
    """Return whether every file that was written with this lineage is still there, unchanged."""
    return all((folder / n).is_file() and sha256_file(folder / n) == s for n, s in lineage.outputs.items())


def parse_lineage(value: object) -> Lineage:
    """Return the lineage held in a JSON object.

    Raises
    ------
    TypeError : the object is not a lineage
    """
    if not isinstance(value, dict):
        raise TypeError("a lineage is a JSON object")
    return Lineage(**value)
