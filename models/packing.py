"""Dataclasses as one .npz file: arrays as they are, all else as JSON. Nothing in it can run when it is opened.

This module needs numpy alone: it opens what the API serves.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray

FORMAT = 1  # raised when what a file means changes
PLAN = "plan"  # the array that holds the JSON

Arrays = dict[str, NDArray[np.generic]]


class PackingError(ValueError):
    """The file is none of ours, or of another format."""


def write_packed(value: object, file: IO[bytes]) -> None:
    """Write a dataclass whose fields are dataclasses, arrays, plain values, and sequences and mappings of these."""
    arrays: Arrays = {}
    text = json.dumps({"format": FORMAT, "value": _to_json(value, arrays)}, allow_nan=False, separators=(",", ":"))
    arrays[PLAN] = np.frombuffer(text.encode(), dtype=np.uint8)
    np.savez(file, allow_pickle=False, **arrays)


def read_packed(content: bytes, kinds: Mapping[str, type]) -> object:
    """Return what `write_packed` wrote.

    Parameters
    ----------
    content : the file
    kinds : the dataclasses that may be in it, by name

    Raises
    ------
    PackingError : the file is damaged, or of another format
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays: Arrays = {name: file[name] for name in file.files}
        plan = json.loads(arrays[PLAN].tobytes())
        if plan["format"] != FORMAT:
            raise PackingError(f"format {plan['format']}, expected {FORMAT}")
        return _from_json(plan["value"], arrays, kinds)
    except PackingError:
        raise
    except Exception as err:  # zip, JSON and numpy each have their own errors for a damaged file
        raise PackingError(f"it cannot be read ({type(err).__name__})") from err


def _to_json(value: object, arrays: Arrays) -> object:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _to_json(getattr(value, f.name), arrays) for f in dataclasses.fields(value) if f.init}
        return {"kind": type(value).__name__, "fields": fields}
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects cannot be packed")
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Mapping):
        return {"map": [[key, _to_json(item, arrays)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_to_json(item, arrays) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot be packed")


def _from_json(value: object, arrays: Arrays, kinds: Mapping[str, type]) -> object:
    if isinstance(value, list):
        return tuple(_from_json(item, arrays, kinds) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "map" in value:
        return {key: _from_json(item, arrays, kinds) for key, item in value["map"]}
    fields = {name: _from_json(item, arrays, kinds) for name, item in value["fields"].items()}
    return kinds[value["kind"]](**fields)
