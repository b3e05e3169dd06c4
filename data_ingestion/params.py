"""The parameters of the stages: params.yaml, overridden by the environment, overridden by flags.

A stage declares a subclass of `StageParams`, one field per parameter with its type, default and description; its
flags, its block in params.yaml and its `--help` follow from that.
"""

import argparse
import difflib
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from data_ingestion.handoff import REPOSITORY, PipelineError

ENVIRONMENT = "PIPELINE_"  # begins the names of the variables that set parameters
METAVARS: dict[object, str] = {int: "N", float: "X", Path: "PATH"}
BLOCKS = ("load", "preprocess", "train", "evaluate", "track")
_SHARED = ("seed",)  # top-level keys of params.yaml that every stage may read
# Say how to run, not what to compute.
_RUN_ONLY = ("root", "if_changed", "sync", "infer", "check", "append", "dry_run")


class StageParams(BaseModel):
    """What every stage takes. Subclasses add their own fields and name their block of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    block: ClassVar[str] = ""

    root: Path = Field(REPOSITORY, description="folder that holds data/, models/, evaluation/ and mlflow/")
    if_changed: bool = Field(False, description="do nothing when inputs, parameters and code are as they were")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="the one source of randomness")

    def effective(self) -> dict[str, object]:
        """Return the parameters that decide the result, as plain values for the lineage of the output."""
        return self.model_dump(mode="json", exclude=set(_RUN_ONLY))


ParamsT = TypeVar("ParamsT", bound=StageParams)


def parse_params(params_type: type[ParamsT], argv: Sequence[str] | None, description: str) -> ParamsT:
    """Return the effective parameters of a stage.

    Parameters
    ----------
    params_type : the stage's parameters
    argv : the flags, without the program name; None means the command line
    description : shown by `--help`, the script's own docstring

    Raises
    ------
    PipelineError : an unknown flag or key (the nearest name is offered), or a value of the wrong type
    """
    flags = _parse_flags(params_type, argv, description)
    file = _find_params_file(flags)
    values = read_params_file(file, params_type) | _read_environment(params_type) | flags
    try:
        params = params_type.model_validate(values)
    except ValidationError as err:
        raise PipelineError(_explain(err, flags, file, params_type.block)) from err
    return params.model_copy(update={"root": params.root.resolve()})


def read_params_file(path: Path, params_type: type[StageParams]) -> dict[str, object]:
    """Return the keys of params.yaml that concern one stage.

    Raises
    ------
    PipelineError : the file is not YAML, or holds a block or key that nobody reads
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise PipelineError(f"{path} cannot be read as YAML: {' '.join(str(err).split())}. Mend it.") from err
    if not isinstance(content, dict):
        raise PipelineError(f"{path} must hold blocks ({', '.join(BLOCKS)}), got {type(content).__name__}.")
    for key in content:
        if key not in BLOCKS + _SHARED:
            raise PipelineError(f'{path}: unknown key "{key}".{suggest(str(key), BLOCKS + _SHARED)}')
    block = content.get(params_type.block) or {}
    if not isinstance(block, dict):
        kind = type(block).__name__
        raise PipelineError(f"{path}: {params_type.block} must hold keys and values, got {kind}. Mend it.")
    names = [n for n in params_type.model_fields if n not in _RUN_ONLY + _SHARED]
    for key in block:
        if key not in names:
            raise PipelineError(f'{path}: unknown key "{params_type.block}.{key}".{suggest(str(key), names)}')
    return {**{k: content[k] for k in _SHARED if k in content}, **block}


def _read_environment(params_type: type[StageParams]) -> dict[str, str]:
    """Return the parameters that environment variables set; pydantic makes of the texts what they should be."""
    variables = {name: ENVIRONMENT + name.upper() for name in params_type.model_fields}
    return {name: os.environ[variable] for name, variable in variables.items() if variable in os.environ}


def suggest(name: str, known: Sequence[str]) -> str:
    """Return a sentence that offers the known names nearest to `name`, or all of them when none is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return " Did you mean " + " or ".join(f'"{n}"' for n in near) + "?"
    listed = ", ".join(list(known)[:5]) + (f" (+{len(known) - 5} more)" if len(known) > 5 else "")
    return f" Known: {listed}."


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports its errors like the rest of the pipeline."""

    def error(self, message: str) -> NoReturn:
        raise PipelineError(f"{message}. See --help.")


def _parse_flags(params_type: type[StageParams], argv: Sequence[str] | None, description: str) -> dict[str, object]:
    """Return the flags given, by field name; the values are still text."""
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for name, info in params_type.model_fields.items():
        flag = "--" + name.replace("_", "-")
        if info.annotation is bool:
            parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=info.description)
        else:
            default = "none" if info.default is None else info.default
            text = f"{info.description} (default: {default})".replace("%", "%%")
            choices = _list_choices(info)
            metavar = "{" + ",".join(choices) + "}" if choices else METAVARS.get(info.annotation, "TEXT")
            parser.add_argument(flag, default=argparse.SUPPRESS, help=text, metavar=metavar)
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = ["--" + name.replace("_", "-") for name in params_type.model_fields]
        raise PipelineError(f'unknown flag "{unknown[0]}".{suggest(unknown[0].split("=")[0], flags)} See --help.')
    return vars(known)


def _list_choices(info: FieldInfo) -> list[str]:
    """Return the values a field may take, when they can be listed."""
    annotation = info.annotation
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return [str(c) for m in members if typing.get_origin(m) is Literal for c in typing.get_args(m)]


def _find_params_file(flags: dict[str, object]) -> Path:
    """Return the root's own params.yaml where it has one, else the repository's."""
    root = Path(str(flags.get("root") or os.environ.get(f"{ENVIRONMENT}ROOT") or REPOSITORY))
    own = root / "params.yaml"
    return own if own.is_file() else REPOSITORY / "params.yaml"


def _explain(err: ValidationError, flags: dict[str, object], file: Path, block: str) -> str:
    """Return one line for the first value at fault: where it stands, what is expected, what was got."""
    first = err.errors()[0]
    name = str(first["loc"][0])
    if name in flags:
        where = "--" + name.replace("_", "-")
    elif (variable := ENVIRONMENT + name.upper()) in os.environ:
        where = f"environment variable {variable}"
    else:
        where = f"{file}: {name if name in _SHARED else f'{block}.{name}'}"
    rule = first["msg"][0].lower() + first["msg"][1:]
    return f"{where}: {rule}, got {first['input']!r}. Correct it, or leave it out for the default."
