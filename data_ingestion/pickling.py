"""Pickles with the same bytes for the same object.

A pickle refers back to what it has written when it meets the very same object again, and writes an equal one anew.
Which strings, numpy dtypes and small values of a library are one object depends on what the process did before, and on
whether a worker process made them, so the bytes, and with them the version of a model, would differ between two runs on
the same data.
"""

from collections.abc import Hashable
from dataclasses import is_dataclass
from typing import IO

from joblib.numpy_pickle import NumpyPickler

_PLAIN = {str, bytes, int, float, bool, type(None)}


class _Pickler(NumpyPickler):  # type: ignore[misc]
    """Takes equal strings for one, and so equal dtypes, and dataclasses of plain values."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._met: dict[Hashable, object] = {}

    def save(self, obj: object) -> None:
        name = self._name(obj)
        super().save(obj if name is None else self._met.setdefault(name, obj))

    def _name(self, obj: object) -> Hashable:
        """Return what equal values share, None for an object that is only itself."""
        if type(obj) is str:
            return obj
        if isinstance(obj, self.np.dtype):  # of its parts: == looks over the metadata
            return type(obj), repr(obj.__reduce__())
        fields = getattr(obj, "__dict__", {}) if is_dataclass(obj) and not isinstance(obj, type) else {}
        if fields and _PLAIN.issuperset(map(type, fields.values())):
            return type(obj), repr(fields)
        return None


def dump_pickle(value: object, file: IO[bytes]) -> None:
    """Write what `joblib.load` reads."""
    _Pickler(file).dump(value)
