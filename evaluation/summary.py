"""Print what a run came to: rows, figures beside the dummy's, the verdict, and what to type next.

python evaluation/summary.py
python evaluation/summary.py --markdown
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import Field

from data_ingestion import handoff as files
from data_ingestion.handoff import Workspace
from data_ingestion.params import StageParams, parse_params

EVALUATOR = "evaluation/evaluate_model.py"


class SummaryParams(StageParams):
    """Parameters of this script."""

    markdown: bool = Field(False, description="print Markdown, for a pull request or a job summary")


def tabulate(test: Mapping[str, object]) -> list[tuple[str, ...]]:
    """Return the figures of metrics.json's section "test" as rows of text, the header first."""
    from evaluation.metrics import TITLES, format_score, tabulate_scores

    rows = [("on the test rows", "model", f"{test['confidence']:.0%} interval", "dummy"), *tabulate_scores(test)]
    champion: Mapping[str, float | None] | None = test["champion"]  # type: ignore[assignment]
    if champion is None:
        return list(rows)
    beside = ["champion", *(format_score(champion[name]) for name in TITLES if name in test)]
    return [(*row, cell) for row, cell in zip(rows, beside, strict=True)]


def format_table(rows: Sequence[Sequence[str]], markdown: bool = False) -> list[str]:
    """Return rows of text as aligned lines, the first column to the left and the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    aligned = [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))] for row in rows]
    if not markdown:
        return ["  ".join(row) for row in aligned]
    lines = ["| " + " | ".join(row) + " |" for row in aligned]
    return [lines[0], "| :--- |" + " ---: |" * (len(rows[0]) - 1), *lines[1:]]


def describe_run(metrics: Mapping[str, object], markdown: bool) -> list[str]:
    """Return the lines of the summary."""
    rows: Mapping[str, int] = metrics["rows"]  # type: ignore[assignment]
    train: Mapping[str, object] = metrics["train"]  # type: ignore[assignment]
    test: Mapping[str, object] = metrics["test"]  # type: ignore[assignment]
    return [
        f"model {metrics['model_version']} ({train['chosen']}) predicts {metrics['target']}",
        f"rows: {rows['in']:,} in, {rows['rejected']:,} rejected, {rows['train']:,} train, {rows['test']:,} test",
        "",
        *format_table(tabulate(test), markdown),
        "",
        *describe_verdict(metrics, markdown),
    ]


def describe_verdict(metrics: Mapping[str, object], markdown: bool) -> list[str]:
    """Return the verdict with its reasons, in a line each."""
    from evaluation.gate import read_verdict

    verdict = read_verdict(metrics)
    if not markdown:
        return verdict.to_lines()
    return [f"**{verdict.status}**", "", *(f"- {reason}" for reason in verdict.reasons)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script, and return the verdict's exit code; see the module's description."""
    from evaluation.gate import read_verdict

    params = parse_params(SummaryParams, argv, __doc__ or "")
    workspace = Workspace(params.root)
    metrics = files.read_json(workspace.metrics, EVALUATOR)
    if "test" not in metrics or "verdict" not in metrics:
        raise files.stale_error(workspace.metrics, "the model has not been evaluated", EVALUATOR)
    print("\n".join(describe_run(metrics, params.markdown)))
    if not params.markdown:
        root = "" if params.root == files.REPOSITORY else f" ROOT={shlex.quote(str(params.root))}"
        print(
            f"\nreport:     {workspace.show(workspace.report)}\nnext:       make serve{root}   (predictions over HTTP)"
        )
        print(f"            make ui{root}      (the runs in MLflow)")
    return 0 if params.markdown else read_verdict(metrics).exit_code


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
