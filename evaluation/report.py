"""The report of an evaluation: one self-contained page, and a short text for a pull request.

Both show what metrics.json holds, and leave out what it does not hold. Texts from the data are escaped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from data_ingestion.schema import Column, Contract
from evaluation import formatting
from evaluation.figure_style import embed_svg
from evaluation.figures import draw_figures
from evaluation.metrics import SCORES, TITLES, format_score
from evaluation.sections import Slices, read_scores, read_test
from evaluation.wording import answer_question, describe_figure, quote, title_metric
from models.artifact import Manifest

__all__ = ["build_markdown", "build_report", "draw_figures"]

TEMPLATES = Path(__file__).parent / "templates"
TOP_FEATURES = 5
WORST_SLICES = 3
MAX_CANDIDATES = 12  # others are folded away
MAX_LEVELS = 4  # categories named of each column


class ScoreRow(NamedTuple):
    """A figure as texts; where there is no such figure, a dash."""

    title: str
    value: str
    interval: str
    dummy: str
    champion: str
    train: str
    better: str


class Drawn(NamedTuple):
    """A figure as the page shows it."""

    name: str
    title: str
    finding: str
    svg: Markup


def build_report(
    manifest: Manifest, contract: Contract, metrics: Mapping[str, object], figures: Mapping[str, bytes]
) -> str:
    """Return the page: it shows without a network, in light and dark, on a phone and on paper.

    Parameters
    ----------
    manifest, contract : of the model under test
    metrics : metrics.json with its section "test"
    figures : SVG files by name, as `figures.draw_figures` gives them
    """
    template = build_environment(autoescape=True).get_template("report.html")
    return template.render(
        **collect_facts(manifest, contract, metrics), drawn=embed_figures(manifest, metrics, figures)
    )


def build_markdown(manifest: Manifest, contract: Contract, metrics: Mapping[str, object]) -> str:
    """Return the short report in Markdown; parameters as for `build_report`."""
    template = build_environment(autoescape=False).get_template("report.md")
    return template.render(**collect_facts(manifest, contract, metrics))


def build_environment(autoescape: bool) -> Environment:
    """Return the templates with the filters they use."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "score": lambda value: format_score(value) if value is not None else formatting.NOTHING,
        "number": formatting.format_number,
        "percent": formatting.format_percent,
        "count": lambda value: formatting.NOTHING if value is None else f"{value:,}",
        "duration": formatting.format_duration,
        "p": formatting.format_probability,
        "counted": formatting.format_count,
        "title_metric": title_metric,
        "quote": quote,
        "sentence": formatting.end_sentence,
        "md": formatting.escape_markdown,
    }
    return environment


def collect_facts(manifest: Manifest, contract: Contract, metrics: Mapping[str, object]) -> dict[str, object]:
    """Return what both templates show."""
    test = read_test(metrics)
    leading, others = part_candidates(metrics)
    importance = sorted(test.get("importance") or [], key=lambda row: -row["mean"])
    return {
        "manifest": manifest,
        "contract": contract,
        "metrics": metrics,
        "test": test,
        "train": metrics["train"],
        "leading": leading,
        "others": others,
        "verdict": metrics.get("verdict"),
        "answer": answer_question(manifest, metrics),
        "scores": tabulate_scores(metrics),
        "confidence": formatting.format_percent(test["confidence"]),
        "importance": importance,
        "scale": find_scale(test.get("slices")),
        "leaks": list_leaks(test),
        "columns": list_columns(contract, test),
        "top_features": TOP_FEATURES,
        "worst_slices": WORST_SLICES,
    }


def tabulate_scores(metrics: Mapping[str, object]) -> list[ScoreRow]:
    """Return a row per figure, the one that candidates were compared by first."""
    test, train = read_test(metrics), cast("Mapping[str, object]", metrics["train"])
    scores, dummy, champion, learnt = (
        read_scores(section) for section in (test, test.get("dummy"), test.get("champion"), test.get("train"))
    )
    rows = []
    for name in sorted(test["intervals"], key=lambda name: (name != train["metric"], _place_metric(name))):
        bounds = test["intervals"][name]
        between = formatting.NOTHING if bounds is None else f"{format_score(bounds[0])} to {format_score(bounds[1])}"
        rows.append(
            ScoreRow(
                title=title_metric(name),
                value=format_score(scores.get(name)),
                interval=between,
                dummy=_show_score(dummy, name),
                champion=_show_score(champion, name),
                train=_show_score(learnt, name),
                better="higher" if name in SCORES else "lower",
            )
        )
    return rows


def _show_score(scores: Mapping[str, float], name: str) -> str:
    return format_score(scores[name]) if name in scores else formatting.NOTHING


def _place_metric(name: str) -> int:
    return list(TITLES).index(name) if name in TITLES else len(TITLES)


def part_candidates(metrics: Mapping[str, object]) -> tuple[list[object], list[object]]:
    """Return the best candidates with all that the model is made of, and the others."""
    train = cast("Mapping[str, list[Mapping[str, object]]]", metrics["train"])
    leading: list[object] = []
    others: list[object] = []
    for place, row in enumerate(train["leaderboard"]):
        (leading if place < MAX_CANDIDATES or row.get("weight") else others).append(row)
    return leading, others


def find_scale(slices: Slices | None) -> tuple[float, float] | None:
    """Return the range that the intervals of all slices share, for bars that can be compared."""
    if not slices or not slices.get("worst"):
        return None
    ends = [value for row in slices["worst"] for value in (*(row["interval"] or []), row["score"], row["rest"])]
    return min(ends), max(ends)


def list_leaks(test: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the findings of data/leaks.json."""
    leaks = test.get("leaks") or []
    found = leaks.get("findings", []) if isinstance(leaks, Mapping) else leaks
    return cast("list[Mapping[str, object]]", found)


def list_columns(contract: Contract, test: Mapping[str, object]) -> list[dict[str, object]]:
    """Return what is known of each column of the source: from the profile, else from the contract."""
    profile = cast("Mapping[str, object]", test.get("profile") or {})
    known = cast("Mapping[str, Mapping[str, object]]", profile.get("columns", profile))
    return [
        {"name": name, "role": column.role, "kind": column.kind, "range": describe_range(column, known.get(name, {}))}
        | {key: known.get(name, {}).get(key) for key in ("missing_share", "distinct")}
        for name, column in contract.columns.items()
    ]


def describe_range(column: Column, known: Mapping[str, object]) -> str:
    """Return what values a column holds: its bounds, or its commonest categories."""
    low, high = known.get("min", column.min), known.get("max", column.max)
    if low is not None and high is not None:
        return f"{formatting.format_point(low)} to {formatting.format_point(high)}"
    top = cast("list[Mapping[str, object]]", known.get("top") or [])
    names = [str(row["value"]) for row in top] or column.categories or []
    if not names:
        return ""
    return formatting.join_texts(names[:MAX_LEVELS], max(len(names), cast("int", known.get("distinct") or 0)))


def embed_figures(manifest: Manifest, metrics: Mapping[str, object], figures: Mapping[str, bytes]) -> dict[str, Drawn]:
    """Return the figures with title and finding, by name without ending."""
    drawn = {}
    for file_name, content in figures.items():
        name = file_name.removesuffix(".svg")
        title, finding = describe_figure(name, manifest, metrics)
        svg = Markup(embed_svg(content, name))  # matplotlib and ElementTree have escaped its texts
        drawn[name] = Drawn(name, title, finding, svg)
    return drawn
