"""API keys: who may ask. In memory and in the file of API_KEYS_FILE there are only their hashes.

A key that is made here is 256 random bits, so one plain SHA-256 is enough: nobody can try them all. Salts and slow
hashes are for passwords, which people think up. A file has a line `name sha256` for each key; # begins a comment.

    python app/api_keys.py --file keys.txt --name alice      makes a key, and prints it this once
    python app/api_keys.py --file keys.txt --revoke alice
    python app/api_keys.py --file keys.txt --list
"""

import argparse
import asyncio
import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_ingestion.handoff import PipelineError, commit, run_stage

logger = logging.getLogger(__name__)

CHECK_S = 1.0  # how often the file is looked at
MAX_BYTES = 2**20  # of the file
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64})[ \t]+([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NOBODY = ("", bytes(32))

Hashes = dict[str, bytes]  # SHA-256 by name


class ApiKeys:
    """The keys that are valid now.

    Parameters
    ----------
    given : keys from the environment
    path : the file of others

    Raises
    ------
    PipelineError : the file cannot be read
    """

    def __init__(self, given: Sequence[str], path: Path | None) -> None:
        self.path = path
        self.is_on = bool(given) or path is not None
        self._given = {f"API_KEYS {place}": hash_key(key.encode()) for place, key in enumerate(given, 1)}
        self._stamp = stamp_file(path)
        self._refused: str | None = None
        self._use(read_keys(path) if path is not None else {})

    def find_name(self, key: bytes | None) -> str | None:
        """Return whose key it is; None when it is nobody's.

        A table finds the one hash that may be the same, by its beginning, and only a whole hash is compared, in
        constant time: what the time tells is about hashes, from which no key can be found.
        """
        digest = hash_key(key or b"")
        name, known = self._table.get(digest[:8], _NOBODY)
        return name if hmac.compare_digest(digest, known) and name else None

    async def watch(self) -> None:
        """Read the file again whenever it has changed, for ever. Nobody waits for that."""
        while self.path is not None:
            await asyncio.sleep(CHECK_S)
            if stamp_file(self.path) != self._stamp:
                await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Take the keys of the file; when it cannot be read, say so once and keep those that were valid."""
        assert self.path is not None
        self._stamp = stamp_file(self.path)
        try:
            self._use(read_keys(self.path))
            self._refused = None
            logger.info("the API keys were read again, %d are valid", len(self._table))
        except PipelineError as err:
            if str(err) != self._refused:
                logger.error("the API keys stay as they were: %s", err)
            self._refused = str(err)

    def _use(self, read: Mapping[str, bytes]) -> None:
        hashes = {**read, **self._given}
        self._table = {digest[:8]: (name, digest) for name, digest in hashes.items()}
        if self.is_on and not hashes:
            logger.warning("%s holds no API key: every request that needs one is refused", self.path)


def hash_key(key: bytes) -> bytes:
    """Return the SHA-256 of a key."""
    return hashlib.sha256(key).digest()


def stamp_file(path: Path | None) -> tuple[int, ...] | None:
    """Return what changes when the file does; None when there is none."""
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)


def read_keys(path: Path) -> Hashes:
    """Return the hashes of a file by name.

    Raises
    ------
    PipelineError : it cannot be read; the line is named, and not shown
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PipelineError(f"{path} is longer than {MAX_BYTES:,} bytes. Name a file of API keys.")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        why = err.strerror if isinstance(err, OSError) else "it is not UTF-8"
        raise PipelineError(f"cannot read the API keys in {path}: {why}. Mend it: {show_command(path)}") from err
    hashes: Hashes = {}
    for number, line in enumerate(lines, 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None or match[1] in hashes:
            what = "expects `name sha256`" if match is None else "has a name that another line has"
            raise PipelineError(f"{path} line {number} {what}. Mend the line, or remove it.")
        hashes[match[1]] = bytes.fromhex(match[2])
    return hashes


def show_command(path: Path) -> str:
    """Return the command that makes a key."""
    return f"python app/api_keys.py --file {path} --name NAME"


def add_key(path: Path, name: str) -> str:
    """Make a key, add its hash to a file, and return the key.

    Raises
    ------
    PipelineError : the name is none or is there already, or the file cannot be read or written
    """
    if _NAME.fullmatch(name) is None:
        raise PipelineError("--name: expects at most 64 letters, digits, points, hyphens and underscores.")
    if path.exists() and name in read_keys(path):
        raise PipelineError(f"{path} has a key of that name. Choose another name, or revoke it first: --revoke {name}")
    key = secrets.token_urlsafe(32)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ["# name sha256 of the key"]
    write_lines(path, [*lines, f"{name} {hash_key(key.encode()).hex()}"])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Remove a key from a file.

    Raises
    ------
    PipelineError : there is none of that name, or the file cannot be read or written
    """
    if name not in read_keys(path):
        raise PipelineError(f"{path} has no key of that name. See: --list")
    lines = path.read_text(encoding="utf-8").splitlines()
    write_lines(path, [line for line in lines if line.split("#")[0].split()[:1] != [name]])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    with commit() as files, files.open(path) as file:
        Path(file.name).chmod(0o600)
        file.write("".join(f"{line}\n" for line in lines).encode())


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    default = os.environ.get("API_KEYS_FILE")
    parser.add_argument(
        "--file", type=Path, default=default, required=not default, help="of the keys (default: API_KEYS_FILE)"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--name", help="make a key for whom this names")
    what.add_argument("--revoke", metavar="NAME", help="remove this key")
    what.add_argument("--list", action="store_true", help="list the names")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make, remove or list keys."""
    args = parse_args(argv)
    if args.name is not None:
        print(add_key(args.file, args.name))
        print(f"Send it in the header X-API-Key. It is not shown again: {args.file} holds its hash.", file=sys.stderr)
    elif args.revoke is not None:
        revoke_key(args.file, args.revoke)
        print(f"{args.file} has no key of {args.revoke} any more; a running server notices within a second")
    else:
        print("\n".join(read_keys(args.file)))


if __name__ == "__main__":
    sys.exit(run_stage(main))
