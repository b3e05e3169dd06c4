"""Pickles with the same bytes for the same object.

A pickle refers back to a string it has written when it meets the very same object again, and writes an equal one anew.
Which attribute names are one object depends on what the process did before, so the bytes, and with them the version of
a model, would differ between two runs on the same data.
"""

from typing import IO

from joblib.numpy_pickle import NumpyPickler


class _Pickler(NumpyPickler):  # type: ignore[misc]
    """Takes equal strings for one."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._strings: dict[str, str] = {}

    def save(self, obj: object) -> None:
        if type(obj) is str:
            obj = self._strings.setdefault(obj, obj)
        super().save(obj)


def dump_pickle(value: object, file: IO[bytes]) -> None:
    """Write what `joblib.load` reads."""
    _Pickler(file).dump(value)
