"""The report: what it says, that texts from the data stay texts, and how it looks in a real browser."""

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from browser import Browser, find_browser
from markdown_it import MarkdownIt
from small_metrics import build_contract, build_everything, build_manifest, build_metrics

from data_ingestion.handoff import Workspace
from data_ingestion.schema import Column
from evaluation import figures, formatting, report, wording
from evaluation.figure_style import cut, embed_svg, to_svg, use_style
from models import artifact
from models.artifact import Manifest, Predictions

TASKS = ("regression", "binary", "multiclass")
CLASSES = {"regression": [], "binary": ["No", "Yes"], "multiclass": ["Adelie", "Chinstrap", "Gentoo"]}
PLAIN = ["tenure", "contract", "since", "charges", "total", "phone", "internet"]
HOSTILE = [
    '<script>alert("x")</script> & co',
    "Größe_年齢_Приве́т",
    "a_very_long_column_name_that_goes_on_" * 4,
    "cost $\\frac{ in $ | `code` @everyone",
    "非常に長い名前の列であって何度も繰り返す名前" * 2,
    "None #1 [link](http://example.org)",
]
HOSTILE_CLASSES = [
    "<b>$x_1$</b>",
    "NaN",
    "企鵝属企鵝属企鵝属企鵝属企鵝属",
    *(f"a class with a long name, number {n}" for n in range(27)),
]


def draw_made_up(manifest: Manifest, metrics: dict[str, object], n_rows: int = 300) -> dict[str, bytes]:
    """The figures of a model that is right in most of the rows."""
    rng = np.random.default_rng(3)
    if manifest.task == "regression":
        y = pd.Series(rng.gamma(2, 50_000, n_rows))
        answers = Predictions(list(y * rng.normal(1, 0.2, n_rows)))
    else:
        classes = manifest.classes or []
        places = np.arange(n_rows) % len(classes)
        y = pd.Series([classes[place] for place in places])
        probabilities = rng.dirichlet(np.ones(len(classes)), n_rows)
        probabilities[np.arange(n_rows), places] += 0.5
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        answers = Predictions([classes[place] for place in probabilities.argmax(axis=1)], probabilities)
    contract = build_contract(manifest.task, manifest.target, list(manifest.feature_names))
    with use_style():
        drawn = {**dict(figures.draw_answers(manifest, y, answers)), **dict(figures.draw_numbers(contract, metrics))}
        return {f"{name}.svg": to_svg(figure) for name, figure in drawn.items()}


def build_page(
    task: str, target: str = "Churn", features: Sequence[str] = PLAIN, classes: Sequence[str] | None = None
) -> str:
    """A page with every section there is."""
    names = CLASSES[task] if classes is None else classes
    contract = build_contract(task, target, features)
    manifest, metrics = build_manifest(contract, names), build_everything(contract, names)
    return report.build_report(manifest, contract, metrics, draw_made_up(manifest, metrics))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """One page per task, and one with names that are made to break it."""
    found = {task: build_page(task) for task in TASKS}
    return found | {"hostile": build_page("multiclass", '<img src=x onerror="alert(2)">', HOSTILE, HOSTILE_CLASSES)}


def read_text(page: str) -> str:
    """What a reader sees, on one line, without the figures."""
    body = re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


# What the page says


def test_page_answers_first_how_good_the_model_is(pages: dict[str, str]) -> None:
    text = read_text(pages["binary"])
    expected = (
        "✓ Passed Of 1,376 rows it had never seen, the model answers 80% right (76% to 84% with 95% confidence); "
        "always answering the commonest class would be right for 50%. Of two rows, one “Yes” and one “No”, it gives "
        "the “Yes” the higher probability 84% of the time; guessing would 50%. Better than the dummy"
    )
    assert expected in text
    assert text.index(expected) < text.index("on the test rows")


def test_answer_for_a_regression_is_in_units_of_the_target() -> None:
    contract = build_contract("regression", "price", PLAIN)
    sentences = wording.answer_question(build_manifest(contract, []), build_metrics(contract))
    assert sentences == [
        "On 1,376 rows it had never seen, the model is off by 21.5 on average (20.43 to 22.57 with 95% confidence); "
        "always answering the mean would be off by 55.",
        "It explains 81% of the variance of “price” among them.",
    ]


def test_answer_says_when_chance_could_explain_it() -> None:
    contract = build_contract("binary", "Churn", PLAIN)
    metrics = build_metrics(contract)
    metrics["test"]["intervals"]["roc_auc"] = [0.49, 0.9]  # type: ignore[index]
    assert "may be chance" in wording.answer_question(build_manifest(contract, ["No", "Yes"]), metrics)[-1]


def test_figures_stand_beside_dummy_champion_and_train_rows(pages: dict[str, str]) -> None:
    text = read_text(pages["regression"])
    assert "RMSE lower is better 30.00 28.50 to 31.50 70.00 29.10 30.60" in text
    assert text.index("RMSE lower") < text.index("MSE lower is better 900.00"), "first the one candidates compete by"


@pytest.mark.parametrize("task", TASKS)
def test_every_section_is_there_and_the_contents_lead_to_it(pages: dict[str, str], task: str) -> None:
    page = pages[task]
    targets, ids = re.findall(r'href="#([a-z]+)"', page), re.findall(r'<section id="([^"]*)"', page)
    assert targets == ids
    assert len(ids) == 10
    assert page.count("<h1") == 1


@pytest.mark.parametrize("task", TASKS)
def test_page_without_optional_sections_is_whole(task: str) -> None:
    contract = build_contract(task, "y", PLAIN)
    sections = dict.fromkeys(
        ["champion", "slices", "calibration", "thresholds", "coverage", "importance", "partial_dependence", "timing"]
    )
    for metrics in (build_metrics(contract), build_metrics(contract, **sections)):
        manifest = build_manifest(contract, CLASSES[task])
        page = report.build_report(manifest, contract, metrics, draw_made_up(manifest, metrics))
        assert re.findall(r'href="#([a-z]+)"', page) == ["scores", "curves", "leaks", "training", "data", "lineage"]
        assert "No sign that the target has leaked" in page
        assert "No sign" not in report.build_markdown(manifest, contract, metrics)


def test_figures_that_are_undefined_are_dashes() -> None:
    contract = build_contract("binary", "y", PLAIN)
    metrics = build_metrics(contract)
    test = metrics["test"]
    test |= {"roc_auc": None}  # type: ignore[operator]
    test["intervals"]["roc_auc"] = test["dummy"]["roc_auc"] = None  # type: ignore[index]
    text = read_text(report.build_report(build_manifest(contract, ["No", "Yes"]), contract, metrics, {}))
    assert "ROC AUC higher is better undefined – –" in text


@pytest.mark.parametrize(("status", "shown"), [("rejected", "✗ Rejected"), ("inconclusive", "? Inconclusive")])
def test_verdict_is_said_in_words_not_in_colour_alone(status: str, shown: str) -> None:
    contract = build_contract("binary", "y", PLAIN)
    metrics = build_metrics(contract) | {"verdict": {"status": status, "reasons": ["2 < 3 & so on"]}}
    page = report.build_report(build_manifest(contract, ["No", "Yes"]), contract, metrics, {})
    assert shown in page
    assert "2 &lt; 3 &amp; so on" in page


def test_members_of_the_model_lead_and_others_are_folded_away(pages: dict[str, str]) -> None:
    text = read_text(pages["binary"])
    leading, others = text[text.index("How it was chosen") : text.index("The data 7,043")].split("9 other candidates")
    assert "22 candidates, the dummy among them, cross-validated on the 5,665 train rows" in leading
    assert "compared by ROC AUC. Chosen: ensemble" in leading
    row = "boosting 0 0.8500 0.8400 to 0.8600 0.5 1.25 s 8.5 µs 300 learning_rate\xa00.05"
    assert row.replace("\xa0", " ") in leading
    assert "boosting 15 0.7000" in leading, "a member, though not among the best alone"
    assert "boosting 12 0.7300" in others
    assert "boosting 21 given up early 0.6400 – – 22.2 s 8.5 µs 300 learning_rate 0.05" in others


def test_coverage_is_said_with_its_interval_and_its_price(pages: dict[str, str]) -> None:
    covered = "hold the truth in 90% of the rows. On the test rows it did in 89% (88% to 91% with 95% confidence)."
    assert f"{covered} The sets hold 1.30 classes on average." in read_text(pages["binary"])
    assert f"{covered} The intervals are 88.25 wide on average." in read_text(pages["regression"])


# Figures


def test_figures_of_a_saved_model_are_the_same_bytes_twice(finished_run: Path) -> None:
    workspace = Workspace(finished_run)
    model = artifact.load_model(workspace.models)
    raw = pd.read_parquet(workspace.raw)[:60]
    contract = build_contract("regression", "y", PLAIN)
    metrics = build_everything(contract, [])
    drawn = [
        report.draw_figures(model, raw[list(model.contract.features)], raw[model.contract.target], metrics)
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert {"actual_vs_predicted.svg", "residuals.svg", "permutation_importance.svg"} <= set(drawn[0])
    for content in drawn[0].values():
        assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"


def test_each_figure_says_its_finding_to_those_who_cannot_see_it(pages: dict[str, str]) -> None:
    labels = [html.unescape(label) for label in re.findall(r'role="img" aria-label="([^"]*)"', pages["binary"])]
    assert len(labels) == pages["binary"].count("<svg") == 5 + 1 + 6
    assert all(re.search(r": .*\d", label) for label in labels)
    assert "tenure: From 0.1 at 1.5 to 0.26 at 70." in labels
    assert "contract: From 0.1 at red to 0.18 at missing." in labels
    assert "since: From 0.1 at 2010-01-01 to 0.46 at 2019-01-01." in labels


def test_thirty_classes_are_drawn_and_more_are_not() -> None:
    assert "Which classes are taken for which" in build_page("multiclass", classes=HOSTILE_CLASSES)
    text = read_text(build_page("multiclass", classes=[*HOSTILE_CLASSES, "one more"]))
    assert "31 classes are too many for a drawing" in text


def test_figure_in_the_page_has_the_colours_of_the_page() -> None:
    with use_style():
        figure, axes = figures.new_axes()
        axes.plot([0, 1], [0, 1], color=figures.ACCENT)
        axes.set_xlabel("#1f6f8b & <b>")
        content = to_svg(figure)
    embedded = embed_svg(content, "name")
    assert b"#1f6f8b" in content
    assert "stroke: var(--accent)" in embedded
    assert "#1f6f8b &amp; &lt;b&gt;" in embedded, "a text that reads like a colour stays"
    assert not re.search(r'style="[^"]*#[0-9a-f]{6}', embedded)


def test_identifiers_are_those_of_one_figure(pages: dict[str, str]) -> None:
    for page in pages.values():
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        used = re.findall(r"(?:url\(|href=\")#([^)\"]+)", page)
        assert set(used) <= set(ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("two\nlines\x00 and a zero", "two lines and a zero"),
        ("abcdefghijklmnopqrstuvwxyz", "abcdefgh…wxyz"),
        ("企鵝属企鵝属企鵝属企鵝属企鵝属企鵝属企鵝属企鵝", "企鵝属企…企鵝"),
    ],
)
def test_names_are_cut_in_the_middle(text: str, expected: str) -> None:
    assert cut(text, 13 if len(text) > 22 else 40) == expected


# Safe to open


def test_page_needs_no_network_and_no_script(pages: dict[str, str]) -> None:
    for page in pages.values():
        markup = re.sub(r' aria-label="[^"]*"', "", re.sub(r">[^<]*<", "><", page))
        assert not re.search(r"https?:|<script|<link|<iframe|@import|url\((?!#)|\son\w+=", markup)
        assert len(page) < 1_500_000


def test_names_and_classes_from_the_data_are_escaped(pages: dict[str, str]) -> None:
    page = pages["hostile"]
    assert "&lt;img src=x onerror=" in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"<script|<img|<b>\$", page)
    assert "Größe_年齢_Приве́т" in page


def test_markdown_shows_names_as_they_are_and_mentions_nobody() -> None:
    contract = build_contract("binary", "a | b\n# c", HOSTILE[::-1])
    metrics = build_everything(contract, ["No", "@everyone"])
    text = report.build_markdown(build_manifest(contract, ["No", "@everyone"]), contract, metrics)
    assert text.startswith("## a \\| b \\# c: passed\n")
    assert "<script" not in text
    assert not re.search(r"@\w", text)
    assert "\\[link\\](http" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert widths == {7, 6}, "each table has rows of one width"


def test_markdown_is_rendered_as_it_is_meant() -> None:
    """By an independent parser of CommonMark with GitHub's tables."""
    contract = build_contract("binary", HOSTILE[0], HOSTILE[::-1])
    metrics = build_everything(contract, HOSTILE_CLASSES[:2])
    text = report.build_markdown(build_manifest(contract, HOSTILE_CLASSES[:2]), contract, metrics)
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert not re.search(r"<(script|img|a|b)\b", page)
    assert page.count("<table>") == 2
    assert page.count("<tr>") == (1 + 6) + (1 + 3)
    assert page.count("<td") == 6 * 6 + 3 * 5
    assert f"<h2>{HOSTILE[0]}: passed</h2>" in html.unescape(page)
    assert "None #1 [link](http://example.org)" in html.unescape(page)


def test_markdown_is_short_and_has_the_essentials() -> None:
    contract = build_contract("regression", "price", PLAIN)
    text = report.build_markdown(build_manifest(contract, []), contract, build_everything(contract, []))
    assert len(text.splitlines()) < 40
    assert "\n\n\n" not in text
    for part in (
        "## price: passed",
        "| RMSE | **30.00** | 28.50 to 31.50 | 70.00 | 29.10 | 30.60 |",
        "| tenure = 0 to 10 | 40 | 0.6000 | 0.8400 | 0.006 |",
        "**What it looks at:** tenure, contract, since, charges, total",
        '- Column "tenure" alone predicts the target (ROC AUC 0.999). Ask whether',
        "Model `0123456789ab` (HistGradientBoosting, ensemble), 7 features; 5,665 train rows, 1,376 test rows",
    ):
        assert part in text


# Formats


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (True, "True"),
        (0, "0"),
        (1234567, "1,234,567"),
        (12345.678, "12,346"),
        (0.123456, "0.1235"),
        (-3.5, "-3.5"),
        (1e-7, "1e-07"),
        (2.5e20, "2.5e+20"),
        ("NaN", "NaN"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_the_digits_that_count(value: object, expected: str) -> None:
    assert formatting.format_number(value) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (None, "–"),
        (0.0, "0%"),
        (0.0004, "<0.1%"),
        (0.0123, "1.2%"),
        (0.0996, "10%"),
        (0.8, "80%"),
        (1.0, "100%"),
        (0.9996, ">99.9%"),
        (0.997, "99.7%"),
    ],
)
def test_shares_are_whole_percents_unless_near_an_end(share: float | None, expected: str) -> None:
    assert formatting.format_percent(share) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "–"), (8.5e-6, "8.5 µs"), (0.0123, "12.3 ms"), (1.25, "1.25 s"), (119, "119 s"), (150, "2.5 min")],
)
def test_times_have_the_unit_that_fits(seconds: float | None, expected: str) -> None:
    assert formatting.format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "missing"),
        ("2019-03-01T00:00:00", "2019-03-01"),
        ("2019-03-01T12:30:59.5+00:00", "2019-03-01 12:30"),
        ("x T 00:00", "x T 00:00"),
        (3.0, "3"),
    ],
)
def test_moments_are_short(value: object, expected: str) -> None:
    assert formatting.format_point(value) == expected


def test_column_names_its_commonest_categories_and_counts_the_others() -> None:
    top = {"top": [{"value": name, "rows": 9} for name in "abcde"], "distinct": 194}
    assert report.describe_range(Column(kind="category"), top) == "a, b, c, d and 190 more"
    assert report.describe_range(Column(kind="category", categories=["x", "y"]), {}) == "x, y"


@pytest.mark.parametrize(("adjusted_p", "sure"), [(0.006, True), (0.64, False)])
def test_slices_that_may_be_chance_are_called_so(adjusted_p: float, sure: bool) -> None:
    contract = build_contract("binary", "y", PLAIN)
    metrics = build_everything(contract, ["No", "Yes"])
    metrics["test"]["slices"]["worst"][0]["adjusted_p"] = adjusted_p  # type: ignore[index]
    text = read_text(report.build_report(build_manifest(contract, ["No", "Yes"]), contract, metrics, {}))
    assert ("surest to be worse where tenure = 0 to 10 :" in text) == sure
    assert ("each of these differences may be chance" in text) != sure


# In a real browser

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNLABELLED = "document.querySelectorAll('thead th:not([scope=col]), tbody th:not([scope=row])').length"
CLIPPED = """[...document.querySelectorAll('.plot svg text')].filter(text => {
  const box = text.getBoundingClientRect(), plot = text.closest('svg').getBoundingClientRect();
  return box.left < plot.left - 2 || box.right > plot.right + 2;
}).map(text => text.textContent)"""
HIDDEN = "[...document.querySelectorAll('table')].filter(table => table.getBoundingClientRect().height < 10).length"
WIDE = """[...document.querySelectorAll('.scroll, .plot')]
  .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.getAttribute('aria-label'))"""
# The contrast of WCAG 2: between a text and the nearest background that is not transparent.
CONTRAST = """(() => {
  const light = color => color.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const read = text => text.match(/[\\d.]+/g).map(Number);
  const found = [];
  for (const element of document.querySelectorAll('main *, nav *')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) continue;
    if (element.closest('style')) continue;
    let behind = element, background;
    do { background = read(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
    while (behind && background.length === 4 && background[3] === 0);
    const style = getComputedStyle(element);
    const ink = read(element.closest('svg') ? style.fill : style.color);
    const [low, high] = [light(ink.slice(0, 3)), light(background.slice(0, 3))].sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.5) found.push(element.outerHTML.slice(0, 120));
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium or Chrome on this machine")
    with Browser(command, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.mark.parametrize("width", [375, 768, 1280])
@pytest.mark.parametrize("name", ["binary", "regression", "hostile"])
def test_page_fits_its_window_and_asks_for_nothing(
    pages: dict[str, str], browser: Browser, tmp_path: Path, name: str, width: int
) -> None:
    page = tmp_path / "report.html"
    page.write_text(pages[name], encoding="utf-8")
    browser.open(page, width=width)
    assert browser.evaluate(OVERFLOW) == 0
    assert browser.requests == []
    assert browser.errors == []
    assert browser.evaluate("document.querySelectorAll('svg').length") == pages[name].count("<svg")
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(svg => svg.clientHeight > 100)") is True
    assert browser.evaluate(CLIPPED) == []
    assert browser.evaluate(UNLABELLED) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(
    pages: dict[str, str], browser: Browser, tmp_path: Path, scheme: str
) -> None:
    page = tmp_path / "report.html"
    page.write_text(pages["binary"].replace("<details>", "<details open>"), encoding="utf-8")
    browser.open(page, scheme=scheme)
    assert browser.evaluate(CONTRAST) == []
    is_dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 27)"
    assert is_dark == (scheme == "dark")


@pytest.mark.parametrize("name", ["binary", "hostile"])
def test_print_has_every_table_whole_and_is_light(
    pages: dict[str, str], browser: Browser, tmp_path: Path, name: str
) -> None:
    page = tmp_path / "report.html"
    page.write_text(pages[name], encoding="utf-8")
    browser.open(page, width=703, scheme="dark")  # A4 between its margins
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    assert browser.evaluate(HIDDEN) == 0
    assert browser.evaluate(WIDE) == []
    assert browser.evaluate(OVERFLOW) == 0
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.print_pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
