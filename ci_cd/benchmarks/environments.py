"""The other tools' environments: made from a lock file beside this module where they are missing or out of date."""

import re
import shutil
import subprocess
import sys
from pathlib import Path


class BenchError(Exception):
    """What the reader can mend; shown as one line."""


def make_venv(lock: Path, venv: Path) -> Path:
    """Return the Python of an environment; make it where it is missing or its lock file changed.

    Parameters
    ----------
    lock : what to install
    venv : the folder

    Raises
    ------
    BenchError : there is no uv, or it failed
    """
    python, stamp = venv / "bin/python", venv / lock.name
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise BenchError("found no uv to install the other tools with. Run this with .venv/bin/python, or install uv.")
    print(f"installing {lock.name} into {venv.name}", file=sys.stderr)
    install = ["pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock)]
    for words in (["venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], install):
        if subprocess.run([uv, *words], check=False).returncode:
            raise BenchError(f"uv {words[0]} failed, see above. The other tools come from PyPI, so it needs a network.")
    shutil.copy(lock, stamp)
    return python


def read_pins(lock: Path) -> dict[str, str]:
    """Return the versions that the .in file of a lock file asks for, by name without extras."""
    text = lock.with_suffix(".in").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", text, re.MULTILINE))
