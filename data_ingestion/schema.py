"""The data contract, `data/schema.yaml`: what every column holds, what it is for, and what to do with the unexpected.

The loader infers it once over the whole file; whoever owns the data edits it. Edits win and are never overwritten:
beside the columns the file keeps a checksum of each column as inferred, and a column that differs from its checksum
was edited. The contract alone decides how a CSV is read, how a column is encoded, and what the API accepts.

Imports neither pandas nor pyarrow: the API reads the contract too.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic import model_validator as validate_model

from data_ingestion.handoff import Lineage, PipelineError, check_present, sha256_json, stale_error

Kind = Literal["number", "integer", "boolean", "category", "datetime", "text"]
Role = Literal["feature", "target", "id", "group", "time", "ignored"]
Task = Literal["regression", "binary", "multiclass"]
Policy = Literal["warn", "refuse"]
Strategy = Literal["hash", "stratified", "group", "time"]

LOADER = "data_ingestion/data_loader.py"
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?")
SEPARATOR = r"^[\t !#-~]$"  # one character of ASCII, and no quote
MAX_NUMBER = 1e30  # sums and squares of such numbers stay within a float64, and they within a float32
EXACT_INTEGERS = 2**53  # every integer up to here is itself as a float64
WHOLE_FILE = "*"  # the key of the file's own checksum among those of its columns
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
ISO = "iso"  # the datetime format 2024-02-29, 2024-02-29T13:45:00.5 or 2024-02-29 13:45+01:00

_HEADER = """\
# The data contract. Made by the loader from the whole file; yours to edit: an edited column is never overwritten.
#   kind          number, integer, boolean, category, datetime, text
#   role          feature, target, id, group, time, or ignored (with the reason)
#   nullable      may a value be missing?            missing       spellings that mean missing
#   min, max      the expected range                 out_of_range  warn, or refuse the row
#   decimal       "," where numbers are written 1.234,5; thousands: "," where 1,234.5; currency: "$" where $1,234.5
#   missing_share the share of missing values; a file with many more is remarked on
#   categories    the expected values                unseen        warn, or refuse the row
# After an edit, run the pipeline again. To infer unedited columns anew: python data_ingestion/data_loader.py --infer
"""


class Column(BaseModel):
    """What one column holds and what it is for. Bounds of a datetime are ISO 8601 text in UTC."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    role: Role = "feature"
    reason: StrictStr | None = None
    nullable: StrictBool = True
    min: StrictInt | StrictFloat | StrictStr | None = None
    max: StrictInt | StrictFloat | StrictStr | None = None
    out_of_range: Policy = "warn"
    categories: list[StrictStr] | None = None
    unseen: Policy = "warn"
    monotone: Literal["increasing", "decreasing"] | None = None
    true_values: list[StrictStr] | None = None
    false_values: list[StrictStr] | None = None
    format: StrictStr | None = None
    decimal: Literal[",", "."] | None = None
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    currency: StrictStr | None = Field(None, min_length=1, max_length=4, pattern=r"^[^\d\s+.,-]+$")
    missing_share: float | None = Field(None, ge=0, le=1)
    missing: list[StrictStr] | None = None
    example: StrictInt | StrictFloat | StrictBool | StrictStr | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain values, without those that say nothing of a column of this kind."""
        silent = set() if self.kind == "category" else {"unseen"}
        silent |= set() if self.kind in ("number", "integer", "datetime") else {"out_of_range"}
        return self.model_dump(mode="json", exclude_none=True, exclude=silent)

    @validate_model(mode="before")
    @classmethod
    def _follow_kind(cls, value: object) -> object:
        """Pass over what an edit of the kind has left behind: bounds of numbers, an example of another type."""
        if not isinstance(value, dict):
            return value
        kind = value.get("kind")
        if kind not in ("number", "integer", "datetime"):
            value = {key: item for key, item in value.items() if key not in ("min", "max")}
        elif kind == "datetime":
            value = {key: item for key, item in value.items() if key not in ("min", "max") or isinstance(item, str)}
        if kind in ("number", "integer") and isinstance(value.get("example"), str):
            value = {key: item for key, item in value.items() if key != "example"}
        if kind == "category":
            for key in ("categories", "example"):
                value = value | ({key: _to_texts(value[key])} if value.get(key) is not None else {})
        return value

    @validate_model(mode="after")
    def _check_kind(self) -> Self:
        if self.thousands is not None and self.thousands == (self.decimal or "."):
            raise ValueError(f"decimal and thousands cannot both be {self.thousands!r}")
        if self.unseen == "refuse" and self.kind == "category" and self.categories is None:
            raise ValueError("unseen: refuse needs the list of the categories")
        if self.kind == "text" and self.role == "feature":
            raise ValueError("free text is not encoded; give it kind: category, or role: ignored")
        if self.kind == "text" and self.role == "target":
            raise ValueError("free text cannot be predicted; give it kind: category, or name another target")
        return self

    @validate_model(mode="after")
    def _check_bounds(self) -> Self:
        for bound in (self.min, self.max):
            if bound is None:
                continue
            if self.kind == "datetime":
                parse_datetime(str(bound), ISO)
            elif self.kind not in ("number", "integer") or isinstance(bound, str) or not abs(bound) <= MAX_NUMBER:
                raise ValueError(f"{bound!r} is no bound for a column of kind {self.kind}")
        return self


def _to_texts(value: object) -> object:
    """Return numbers as the texts they were in the file; true and false stay, for YAML made them of other words."""
    if isinstance(value, list):
        return [_to_texts(item) for item in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class Contract(BaseModel):
    """The whole contract: the columns in file order, which one is predicted, and how the file is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: StrictStr
    separator: StrictStr = Field(",", pattern=SEPARATOR)
    encoding: StrictStr | None = None
    target: StrictStr
    task: Task
    missing: list[StrictStr] = list(MISSING)
    columns: dict[StrictStr, Column]

    @validate_model(mode="after")
    def _check_target(self) -> Self:
        targets = [name for name, column in self.columns.items() if column.role == "target"]
        if targets != [self.target]:
            raise ValueError(f'target is "{self.target}" but the columns with role target are {targets}')
        kinds = ("category", "integer") if self.is_classification else ("number", "integer")
        if self.columns[self.target].kind not in kinds:
            raise ValueError(
                f"a {self.task} target has kind {' or '.join(kinds)}, got {self.columns[self.target].kind}"
            )
        if not self.features:
            raise ValueError("no column has the role feature, so there is nothing to learn from")
        return self

    @property
    def features(self) -> dict[str, Column]:
        """The columns a model learns from, in file order."""
        return {name: column for name, column in self.columns.items() if column.role == "feature"}

    @property
    def is_classification(self) -> bool:
        """Whether the target is a class rather than a number."""
        return self.task != "regression"

    def columns_with_role(self, role: Role) -> list[str]:
        """Return the names of the columns that have this role."""
        return [name for name, column in self.columns.items() if column.role == role]

    def missing_spellings(self, name: str) -> list[str]:
        """Return the texts that mean missing in one column; the empty cell always does."""
        own = self.columns[name].missing
        return sorted({"", *(self.missing if own is None else own)})

    def to_dict(self) -> dict[str, object]:
        """Return plain values, without those that say nothing."""
        columns = {name: column.to_dict() for name, column in self.columns.items()}
        return self.model_dump(mode="json", exclude_none=True, exclude={"columns"}) | {"columns": columns}

    def fingerprint(self) -> str:
        """Return a sha256 of the content: comments, layout and where the source stands do not matter."""
        return sha256_json({key: value for key, value in self.to_dict().items() if key != "source"})

    def hash_order(self) -> str:
        """Return a sha256 of the order of the columns, which the fingerprint leaves open."""
        return sha256_json(list(self.columns))


def parse_contract(value: object, where: str) -> Contract:
    """Return the contract held in plain values.

    Raises
    ------
    PipelineError : naming `where`, the key and the rule
    """
    try:
        return Contract.model_validate(value)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("int", "float", "str"))
        rule = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_type":
            rule = f"expects a text, got {first['input']!r}; put it in quotes"
        raise PipelineError(
            f"{where}: {key + ': ' if key else ''}{rule}. Correct it, or delete the file to start afresh."
        ) from err


def checksum_contract(contract: Contract) -> dict[str, str]:
    """Return a short checksum per column, and one for the keys of the whole file: what tells edited from inferred."""
    parts: dict[str, object] = {name: column.to_dict() for name, column in contract.columns.items()}
    parts[WHOLE_FILE] = [contract.separator, contract.encoding, contract.task, contract.missing]
    return {name: sha256_json(part)[:12] for name, part in parts.items()}


def find_edited(contract: Contract, inferred: Mapping[str, str]) -> list[str]:
    """Return the columns that differ from what was inferred, `inferred` being the checksums of that time.

    `WHOLE_FILE` among them stands for the separator, the task and the spellings of missing.
    """
    return [name for name, checksum in checksum_contract(contract).items() if inferred.get(name) != checksum]


def read_contract(path: Path) -> tuple[Contract, dict[str, str]]:
    """Read `schema.yaml`: the contract, and the checksum of each column as it was inferred.

    Raises
    ------
    PipelineError : it is missing, is not YAML, or breaks a rule; line and column are named where YAML knows them
    """
    check_present(path, LOADER)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (ValueError, yaml.YAMLError) as err:
        raise PipelineError(f"{path} is not valid YAML: {' '.join(str(err).split())}. Mend that line.") from err
    if not isinstance(content, dict):
        raise PipelineError(
            f"{path} must be a mapping of keys to values. Correct it, or delete the file to start afresh."
        )
    inferred = content.pop("inferred", None) or {}
    if not isinstance(inferred, dict):
        raise PipelineError(f"{path}: inferred must map columns to checksums. Correct it, or delete the whole key.")
    return parse_contract(content, str(path)), {str(k): str(v) for k, v in inferred.items()}


def check_raw(path: Path, names: Sequence[str], lineage: Lineage, contract: Contract) -> None:
    """Raise unless raw.parquet was loaded under this very contract and holds its columns.

    Parameters
    ----------
    path : raw.parquet
    names : its columns
    lineage : what it was made from
    contract : the contract as it stands in schema.yaml now
    """
    made, now = lineage.inputs.get("schema", "none"), contract.fingerprint()
    if made != now or list(names) != list(contract.columns):
        raise stale_error(path, f"it was loaded under schema {made[:8]}, and data/schema.yaml is now {now[:8]}", LOADER)


def format_contract(
    contract: Contract, inferred: Mapping[str, str], comments: Mapping[str, str] | None = None
) -> bytes:
    """Return the text of `schema.yaml`.

    Parameters
    ----------
    contract : what it says
    inferred : checksums of the columns as they were inferred
    comments : a line on a column for the reader, by its name
    """
    head = contract.to_dict()
    columns: dict[str, object] = head.pop("columns")  # type: ignore[assignment]
    text = _HEADER + _dump(head) + "columns:\n"
    for name, column in columns.items():
        comment = (comments or {}).get(name)
        text += f"  # {comment}\n" if comment else ""
        text += "".join(f"  {line}\n" for line in _dump({name: column}).removesuffix("\n").split("\n"))
    return (text + _dump({"inferred": dict(inferred)})).encode()


def _dump(content: Mapping[str, object]) -> str:
    text: str = yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes mappings as blocks and lists on one line."""


_LOOKS_NUMERIC = re.compile(r"[+-]?[.\d][\d_.:eE+-]*")  # to some YAML reader or other


_ENDS_A_LINE = re.compile("[\x85\u2028\u2029]")  # to YAML, though not to a CSV


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "'" if _LOOKS_NUMERIC.fullmatch(text) else '"' if _ENDS_A_LINE.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


# Single values. The loader does the same to whole columns, and a test holds the two equal.


def parse_datetime(text: str, format: str) -> datetime:
    """Return the moment a text names, in UTC and without a time zone; a text without an offset is taken as UTC.

    Raises
    ------
    ValueError : the text is not of that format, or names no moment (30 February)
    """
    if format != ISO:
        moment = datetime.strptime(text, format)
    elif ISO_DATE.match(text):
        moment = datetime.fromisoformat(text)
    else:
        raise ValueError(f"{text!r} does not begin like 2024-02-29")
    try:
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError as err:
        raise ValueError(f"{text!r} is not within the years 1 to 9999 in UTC") from err


def read_bounds(column: Column) -> tuple[float | datetime | None, float | datetime | None]:
    """Return the range of a column in the type its values have."""
    if column.kind == "datetime":
        return tuple(None if b is None else parse_datetime(str(b), ISO) for b in (column.min, column.max))  # type: ignore[return-value]
    return column.min, column.max  # type: ignore[return-value]


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, as one row and 1,234 rows."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def join_names(names: Sequence[str]) -> str:
    """Return up to five names for a message, with the count of the rest."""
    quoted = ", ".join(f'"{name}"' for name in names[:5])
    return quoted + (f" (+{len(names) - 5} more)" if len(names) > 5 else "")
