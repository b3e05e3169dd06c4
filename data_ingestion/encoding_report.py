"""What became of every raw column: `data/encoding.json` and the lines that the preprocessor prints."""

from collections.abc import Sequence

from data_ingestion.encoder import CYCLES, MISSING_CODE, UNSEEN_CODE, group_encoded_columns
from data_ingestion.learnt import Learnt
from data_ingestion.schema import Contract, count_of, join_names

MAX_LISTED = 50  # levels listed by name


def report_encoding(learnt: Learnt, contract: Contract, min_frequency: int) -> dict[str, object]:
    """Return for each raw column its kind, its encoded columns with what each means, and the learnt numbers.

    Parameters
    ----------
    learnt : the fitted encoder
    contract : the raw columns, those left out with the reason
    min_frequency : below it a level is rare
    """
    encode = learnt.encoder.named_steps["encode"]
    names, places = list(encode.get_feature_names_out()), group_encoded_columns(learnt.encoder)
    columns: dict[str, object] = {}
    for name, column in contract.columns.items():
        if column.role != "feature":
            reason = column.reason or (
                "free text is not encoded" if column.kind == "text" else f"its role: {column.role}"
            )
            columns[name] = {"kind": column.kind, "role": column.role, "encoded": {}, "reason": reason}
            continue
        made = [names[place] for place in places[name]]
        step, number = _find_step(learnt, name)
        meanings, numbers = _DESCRIBE[step](learnt, name, number, made, min_frequency)
        encoded = dict(zip(made, meanings, strict=True))
        columns[name] = {"kind": column.kind, "role": "feature", "encoded": encoded, "learnt": numbers}
    return {"encoded_columns": len(names), "columns": columns}


def describe_encoding(report: dict[str, object]) -> list[str]:
    """Return the lines that tell how the raw columns were encoded, kind by kind."""
    columns: dict[str, dict[str, dict[str, object]]] = report["columns"]  # type: ignore[assignment]
    features = {name: c for name, c in columns.items() if c["role"] == "feature"}  # type: ignore[comparison-overlap]
    made = count_of(int(str(report["encoded_columns"])), "encoded column")
    lines = [f"  {count_of(len(features), 'feature')} became {made}"]
    filled = [name for name, c in features.items() if any("missingindicator" in made for made in c["encoded"])]
    means = [name for name, c in features.items() if "target_mean" in c["learnt"]]
    rare = [name for name, c in features.items() if c["learnt"].get("rare_levels")]
    dates = [name for name, c in features.items() if "parts" in c["learnt"]]
    texts = [name for name, c in columns.items() if c["kind"] == "text"]  # type: ignore[comparison-overlap]
    for what, found in (
        ("missing values filled and flagged", filled),
        ("categories with many levels, so target means", means),
        ("rare levels share a code", rare),
        ("dates in parts", dates),
        ("free text, left out", texts),
    ):
        if found:
            lines.append(f"  {what}: {join_names(found)}")
    return lines


def _find_step(learnt: Learnt, name: str) -> tuple[str, int]:
    """Return the step that encodes a feature, and the feature's place in it."""
    for step, _, features in learnt.encoder.named_steps["encode"].transformers_:
        if step in _DESCRIBE and name in features:
            return str(step), list(features).index(name)
    raise KeyError(name)


def _describe_number(
    learnt: Learnt, name: str, number: int, made: Sequence[str], min_frequency: int
) -> tuple[list[str], dict[str, object]]:
    median = float(learnt.encoder.named_steps["encode"].named_transformers_["number"].statistics_[number])
    meanings = [f"the value; {median:g}, the median of the train rows, where it is missing", "1 where it was missing"]
    return meanings[: len(made)], {"median": median}


def _describe_codes(
    learnt: Learnt, name: str, number: int, made: Sequence[str], min_frequency: int
) -> tuple[list[str], dict[str, object]]:
    levels = learnt.levels[name]
    rare = [text for text, count in zip(levels.texts, levels.counts) if count < min_frequency]
    meaning = f"code of the level in the order of the alphabet; {UNSEEN_CODE} for a level that no train row holds"
    meaning += f", {MISSING_CODE} where it is missing"
    frequent = [text for text in levels.texts if text not in set(rare)]
    meaning += f"; {len(frequent)} for each of the {count_of(len(rare), 'rare level')}" if rare else ""
    codes = {text: code for code, text in enumerate(frequent[:MAX_LISTED])}
    numbers: dict[str, object] = {"levels": len(levels.texts), "codes": codes, "rare_levels": len(rare)}
    return [meaning], numbers | ({"rare": rare[:MAX_LISTED], "rare_code": len(frequent)} if rare else {})


def _describe_means(
    learnt: Learnt, name: str, number: int, made: Sequence[str], min_frequency: int
) -> tuple[list[str], dict[str, object]]:
    means = learnt.target_means[name]
    of = "the target" if len(means) == 1 else "one class against the others"
    meaning = f"mean of {of} over the train rows of the level, for a train row over those of the other folds"
    overall = [mean.mean for mean in means]
    numbers: dict[str, object] = {"levels": len(learnt.levels[name].texts), "target_mean": overall}
    return [f"{meaning}; {mean:.6g} for a level that no train row holds" for mean in overall], numbers


def _describe_dates(
    learnt: Learnt, name: str, number: int, made: Sequence[str], min_frequency: int
) -> tuple[list[str], dict[str, object]]:
    encoder = learnt.encoder.named_steps["encode"].named_transformers_["date"]
    meanings = []
    for part in encoder.parts_[number]:
        meanings.append(f"{part}, 0 being Monday" if part == "weekday" else part)
        if part in CYCLES:
            meanings += [
                f"{wave} of the {part} as an angle, {CYCLES[part]} to the circle" for wave in ("sine", "cosine")
            ]
    meanings += ["days since 1970 in UTC, fractions included"]
    meanings += ["1 where it was missing"] if encoder.has_missing_[number] else []
    moment = str(encoder.moments_[number])
    return meanings, {"missing_becomes": moment, "parts": list(encoder.parts_[number])}


_DESCRIBE = {"number": _describe_number, "category": _describe_codes, "mean": _describe_means, "date": _describe_dates}
