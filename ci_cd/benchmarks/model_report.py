"""What bench_models.py measured, as a page in Markdown."""

from collections.abc import Sequence
from datetime import UTC, datetime

from machine import describe_commit, describe_machine
from model_standings import ERRORS, LEAST_ERROR, OVERRUN, Result, Standing, average, compare_on_table, find_mean_ratio

NAMES = {
    **{"ours": "ours", "flaml": "FLAML", "autogluon": "AutoGluon medium"},
    **{"hgb": "HistGradientBoosting", "lightgbm": "LightGBM", "xgboost": "XGBoost"},
}
METHOD = f"""\
All get the same typed train rows and columns, those of our loader, and answer the same test rows; each seed splits
anew. Ours, FLAML and AutoGluon (`medium_quality`, the full set of its models) are told the budget and what counts:
RMSE for a number, ROC AUC for two classes, log loss for more. HistGradientBoosting, LightGBM and XGBoost are one model
with default settings. Texts are categories and dates are their parts, where a tool does not take them as they are;
HistGradientBoosting gets codes for categories of more than 255 levels. Every fit is a process of its own on at most two
cores, one at a time, the tools in turns. Seconds are those of the fit, without the imports; for ours they are those of
the whole `train_model.py`, start, imports and writing included.

- **rank**: of the mean error over the seeds, 1 is the best; *in budget*: among the tools whose mean fit takes at most
  {OVERRUN:g} budgets on that table. Marked **†** where it takes longer.
- **regret**: how much larger the error is than that of the best on the table.
- **ours ÷ it**: geometric mean over the tables of the ratio of the mean errors: below 1, ours is better. In ratios the
  error of a classification counts as {LEAST_ERROR:g} at least."""


def group_by_table(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each table, in the order of their first."""
    tables: dict[str, list[Result]] = {}
    for result in results:
        tables.setdefault(result.table, []).append(result)
    return tables


def format_error(error: float) -> str:
    """Return an error with four digits that tell something."""
    return f"{error:,.0f}" if error >= 1000 else f"{error:.4g}"


def format_lines(lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, the first line its heading; numbers stand to the right."""
    head, *body = lines
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ruler, *body))


def format_summary(results: Sequence[Result]) -> str:
    """Return how the tools stand over all tables."""
    tables = [compare_on_table(some) for some in group_by_table(results).values()]
    lines = [["", "mean rank", "in budget", "mean regret", "worst regret", "ours ÷ it", "mean fit", "longest fit"]]
    for tool, name in NAMES.items():
        standings = [table[tool] for table in tables if tool in table]
        if not standings:
            continue
        ranks = [standing.rank_in_budget for standing in standings if standing.rank_in_budget is not None]
        regrets = [standing.regret for standing in standings]
        ratio = None if tool == "ours" else find_mean_ratio(results, tool)
        fits = [result.fit_s for result in results if result.tool == tool and result.fit_s is not None]
        cells = [f"{average(standing.rank for standing in standings):.2f}", f"{average(ranks):.2f}" if ranks else "†"]
        cells += [f"{average(regrets):.1%}", f"{max(regrets):.1%}", "" if ratio is None else f"{ratio:.3f}"]
        lines.append([name, *cells, f"{average(fits):.1f} s", f"{max(fits):.1f} s"])
    return format_lines(lines)


def format_errors(results: Sequence[Result]) -> str:
    """Return the mean errors, a line for each table; the least one is bold."""
    tools = [tool for tool in NAMES if any(result.tool == tool for result in results)]
    lines = [["", "error", *(NAMES[tool] for tool in tools), "regret of ours"]]
    for table, some in group_by_table(results).items():
        standings = compare_on_table(some)
        cells = [format_cell(standings.get(tool)) for tool in tools]
        regret = f"{standings['ours'].regret:.1%}" if "ours" in standings else ""
        lines.append([f"`{table}`", ERRORS[some[0].task], *cells, regret])
    return format_lines(lines)


def format_cell(standing: Standing | None) -> str:
    """Return an error; bold where no other is less, and with † where the fit does not keep the budget."""
    if standing is None:
        return "failed"
    text = format_error(standing.error)
    return (f"**{text}**" if standing.regret == 0 else text) + (" †" if standing.is_over else "")


def format_table(table: str, results: Sequence[Result]) -> str:
    """Return how the tools did on one table, with its heading."""
    task = results[0].task
    is_classification = task != "regression"
    extra = ["accuracy"] if is_classification else []
    lines = [["", f"{ERRORS[task]}, mean ± deviation", *extra, "rank", "in budget", "regret", "fit"]]
    standings = compare_on_table(results)
    for tool, standing in sorted(standings.items(), key=lambda pair: pair[1].error):
        spread = "" if standing.spread is None else f" ± {format_error(standing.spread)}"
        extra = [f"{standing.accuracy:.4f}"] if is_classification else []
        in_budget = "†" if standing.rank_in_budget is None else f"{standing.rank_in_budget:g}"
        cells = [format_error(standing.error) + spread, *extra, f"{standing.rank:g}", in_budget]
        lines.append([NAMES[tool], *cells, f"{standing.regret:.1%}", f"{standing.fit_s:.1f} s"])
    rows = f"{average(r.n_train for r in results):,.0f} train and {average(r.n_test for r in results):,.0f} test rows"
    notes = [f"\n{NAMES[r.tool]}, seed {r.seed}: failed, {r.note}." for r in results if r.error is None]
    return "\n".join([f"## `{table}`", "", f"{task.capitalize()}; {rows}.", "", format_lines(lines), *notes])


def describe_others(results: Sequence[Result]) -> str:
    """Return how busy others kept the cores, as far as that is known."""
    others = [result.others for result in results if result.others is not None]
    if not others:
        return ""
    return f"; others kept {average(others):.2f} cores busy during a fit on average, {max(others):.2f} at most"


def format_page(results: Sequence[Result], flags: str) -> str:
    """Return the page of all results, in Markdown.

    Parameters
    ----------
    results : of one budget
    flags : with which the benchmark was run
    """
    command = " ".join([".venv/bin/python ci_cd/benchmarks/bench_models.py", flags]).strip()
    versions = {NAMES[r.tool]: r.version for r in results if r.version and r.tool != "ours"}
    seeds = ", ".join(str(seed) for seed in sorted({result.seed for result in results}))
    head = [
        "# How good the models are",
        f"Written by `bench_models.py`. To repeat: `{command}`",
        METHOD,
        f"Budget {results[0].budget_s:g} s, seeds {seeds}. {describe_machine()}{describe_others(results)}.\n"
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.\n"
        f"Ours at {describe_commit()}, {datetime.now(UTC):%Y-%m-%d}.",
        "## All tables",
        format_summary(results),
        "The mean error of each, the least one bold:",
        format_errors(results),
    ]
    return "\n\n".join([*head, *(format_table(*pair) for pair in group_by_table(results).items())]) + "\n"
