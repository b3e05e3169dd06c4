"""The page /: what it is told of the model, and what people do with it in a real browser."""

import csv
import gzip
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import small_models
from browser import find_browser
from conftest import REPOSITORY, clean_environment
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from small_models import GOOD, build_table, write_small_model

from app.main import create_app
from app.settings import Settings

VERSION = "0123456789ab"
REPORT = f"<!doctype html><title>price: model {VERSION}</title><style>h1 {{ color: red }}</style><h1>The report</h1>"
IMAGE, QUOTED = "<img src=x onerror=alert(1)>", '"größe": it\'s 100 %'  # names of columns
KEY = "zwölf"


def write_root(root: Path, **model: object) -> Path:
    """Write a root with a model, and a report of it."""
    write_small_model(root / "models", **model)
    (root / "evaluation").mkdir(exist_ok=True)
    (root / "evaluation" / "report.html").write_text(REPORT, encoding="utf-8")
    return root


@contextmanager
def use_trees() -> Iterator[None]:
    """Make models of trees inside the block: they are compiled, so a server starts without scikit-learn."""
    with pytest.MonkeyPatch.context() as patch:
        for name, trees in (
            ("LinearRegression", HistGradientBoostingRegressor),
            ("LogisticRegression", HistGradientBoostingClassifier),
        ):
            patch.setattr(small_models, name, lambda trees=trees, **_: trees(max_iter=20, min_samples_leaf=3))
        yield


def write_odd_root(root: Path) -> Path:
    """Write a root with a classification whose names would do harm where they passed for markup."""
    names = {"class": IMAGE, "has lift": QUOTED}
    known = ["<b>a</b>", "b", "__proto__"]
    columns = {names.get(name, name): column for name, column in small_models.COLUMNS.items()}
    columns[IMAGE] = columns[IMAGE] | {"categories": known, "example": "b"}
    good = {names.get(name, name): value for name, value in GOOD.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_models, "KNOWN", known)
        patch.setattr(small_models, "COLUMNS", columns)
        patch.setattr(small_models, "GOOD", good)
        table = build_table().rename(columns=names)
        patch.setattr(small_models, "build_table", lambda: table)
        return write_root(root, task="multiclass")


@contextmanager
def serve(root: Path, **settings: object) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(pipeline_root=root, **settings)), raise_server_exceptions=False) as client:
        yield client


# What the page is told


def test_form_holds_fields_real_rows_and_the_strongest_features(tmp_path: Path) -> None:
    with serve(write_root(tmp_path)) as client:
        form = client.get("/page/form").json()
    assert form["model_version"] == VERSION
    assert [field["name"] for field in form["fields"]] == ["class", "floor area", "rooms", "has lift", "_built"]
    assert form["rows"] == [["b", 41.5, 2, True, "2001-05-17T00:00:00"]]
    assert form["strongest"] == ["floor area", "rooms"]  # 3 times 58, and 7 times 4; the others do nothing
    assert form["fields"][4]["has_time"] is False


def test_strongest_features_are_those_that_evaluation_measured(tmp_path: Path) -> None:
    measured = [{"column": "_built", "mean": 2.0, "std": 0.1}, {"column": "rooms", "mean": 3.0, "std": 0.1}]
    measured += [{"column": "class", "mean": -0.1, "std": 0.1}, {"column": "gone", "mean": 9.0, "std": 0.1}]
    metrics = {"model_version": VERSION, "test": {"importance": measured, "rows": 5}}
    write_root(tmp_path)
    with serve(tmp_path) as client:
        (tmp_path / "models" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        assert client.get("/page/form").json()["strongest"] == ["rooms", "_built"]
        other = json.dumps(metrics | {"model_version": "another"})
        (tmp_path / "models" / "metrics.json").write_text(other, encoding="utf-8")
        assert client.get("/page/form").json()["strongest"][0] == "floor area"


def test_report_is_there_only_for_the_model_that_is_served(tmp_path: Path) -> None:
    write_root(tmp_path)
    with serve(tmp_path) as client:
        answer = client.get("/report")
        assert (answer.status_code, answer.text) == (200, REPORT)
        assert "style-src 'unsafe-inline'" in answer.headers["Content-Security-Policy"]
        assert client.get("/page/form").json()["has_report"] is True
        (tmp_path / "evaluation" / "report.html").write_text(REPORT.replace(VERSION, "f" * 12), encoding="utf-8")
        assert client.get("/report").status_code == 404
        assert client.get("/page/form").json()["has_report"] is False
    (tmp_path / "evaluation" / "report.html").write_text(REPORT, encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    write_small_model(elsewhere)
    with serve(tmp_path, model_dir=elsewhere) as client:
        assert client.get("/report").status_code == 404


def test_without_a_key_the_page_tells_nothing_of_the_model(tmp_path: Path) -> None:
    with serve(write_root(tmp_path), api_keys=KEY) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "price" not in page.text
        assert "floor area" not in page.text
        assert client.get("/page/form").status_code == client.get("/report").status_code == 401
        assert client.post("/report", data={"key": "wrong"}).status_code == 401
        assert client.post("/report", data={"key": KEY}).text == REPORT


def test_page_and_its_files_stay_below_a_prefix(tmp_path: Path) -> None:
    app = create_app(Settings(pipeline_root=write_root(tmp_path)))
    with TestClient(app, root_path="/ml") as client:
        found = re.findall(r'(?:src|href)="([^"#]+)"', client.get("/ml/").text)
    assert len(found) >= 4
    assert all(address.startswith("/ml/") for address in found)


def test_scripts_and_styles_are_small_and_name_no_other_place() -> None:
    files = [path.read_bytes() for path in (REPOSITORY / "app" / "static").iterdir()]
    assert sum(len(gzip.compress(content)) for content in files) < 25_000
    named = {match for content in files for match in re.findall(rb"https?://[^\"'\s)]+", content)}
    assert named == {b"http://www.w3.org/2000/svg"}


# The page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium or Chrome on this machine")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=command, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def servers(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, Path]]]:
    """Addresses and roots of real servers, by name. They are started together."""
    folder = tmp_path_factory.mktemp("page")
    with use_trees():
        roots = {"plain": write_root(folder / "plain"), "odd": write_odd_root(folder / "odd")}
    importance = [{"column": name, "mean": 1.0} for name in ("floor area", "has lift", "_built")]
    metrics = {"model_version": VERSION, "test": {"importance": importance}}
    (roots["plain"] / "models" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    with ExitStack() as stack:
        settings = {"plain": {}, "odd": {"API_KEYS": KEY}}
        started = {name: stack.enter_context(start_server(root, **settings[name])) for name, root in roots.items()}
        for url in started.values():
            wait_until_ready(url)
        yield {name: (url, roots[name]) for name, url in started.items()}


@contextmanager
def start_server(root: Path, **environment: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--log-level", "warning"]
    environment = clean_environment() | {"PIPELINE_ROOT": str(root), "MODEL_POLL_S": "0.1"} | environment
    with open(root / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_until_ready(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            assert httpx.get(f"{url}/ready").status_code == 200
            return
        except httpx.TransportError:
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.05)


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, servers: dict[str, tuple[str, Path]]) -> Iterator[OpenPage]:
    """Open the page of a server: open_page("plain"). After the test nothing may have failed or left the server."""
    with ExitStack() as stack:

        def open_one(
            name: str, ready: str = "#headline data", prefix: str = "/", key: str = "", **options: object
        ) -> Page:
            url, _ = servers[name]
            context = browser.new_context(**options)
            stack.callback(context.close)
            if key:
                context.add_init_script(f"sessionStorage.setItem('api-key', '{key}')")
            page = context.new_page()
            page.set_default_timeout(20_000)
            faults: list[str] = []
            # A refusal that the page shows is also a line in the browser's console.
            page.on("console", lambda said: faults.append(said.text) if is_fault(said.type, said.text) else None)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(url) else None)
            page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
            stack.callback(check_no_faults, faults)
            if prefix != "/":
                page.route(f"{url}{prefix}**", lambda route: strip_prefix(route, f"{url}{prefix}", f"{url}/"))
            page.goto(f"{url}{prefix}")
            expect(page.locator(ready)).to_be_visible(timeout=20_000)
            return page

        yield open_one


def is_fault(kind: str, text: str) -> bool:
    return kind in ("error", "warning") and re.search(r"status of (401|422)", text) is None


def check_no_faults(faults: list[str]) -> None:
    assert [fault for fault in faults if not fault.startswith("blob:")] == []


def strip_prefix(route: Route, prefixed: str, bare: str) -> None:
    """Do as a proxy that serves the API under a prefix."""
    route.fulfill(response=route.fetch(url=route.request.url.replace(prefixed, bare, 1)))


def read_value(page: Page) -> str:
    return str(page.locator("#headline data").get_attribute("value"))


def expect_answer(page: Page, url: str, row: dict[str, object]) -> dict[str, object]:
    """Wait for the prediction that the API gives for a row, and return its answer."""
    answer = httpx.post(f"{url}/predict", json=row, headers={"X-API-Key": KEY.encode()}).json()
    value = answer["prediction"]
    text = value if isinstance(value, str) else json.dumps(value).removesuffix(".0")
    expect(page.locator("#headline data")).to_have_attribute("value", text, timeout=20_000)
    return answer


def test_form_is_made_from_the_contract(open_page: OpenPage) -> None:
    page = open_page("plain")
    expect(page.locator("h1")).to_have_text("Predict price")
    assert page.locator("#fields label").all_inner_texts() == ["class", "floor area", "rooms", "has lift", "_built"]
    assert page.get_by_label("class", exact=True).first.locator("option").all_inner_texts()[1:4] == ["a", "b", "c"]
    assert page.get_by_label("has lift").first.locator("option").all_inner_texts()[1:] == ["Yes", "No"]
    assert page.locator("#fields").get_by_label("_built").input_value() == "2001-05-17"
    assert page.locator("#fields").get_by_label("rooms").get_attribute("required") is not None
    assert "20.5 to 78.5" in page.locator("#fields").inner_text()


def test_every_control_has_a_name_and_every_reference_a_target(open_page: OpenPage) -> None:
    page = open_page("plain")
    found = page.evaluate(
        """() => ({
          unnamed: [...document.querySelectorAll("input, select, button, summary")]
            .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
            .map((one) => one.outerHTML),
          lost: [...document.querySelectorAll("[aria-describedby], [aria-labelledby], label[for], output[for]")]
            .flatMap((one) => ["aria-describedby", "aria-labelledby", "for"]
              .flatMap((name) => (one.getAttribute(name) || "").split(" ")))
            .filter((id) => id && !document.getElementById(id)),
          twice: [...document.querySelectorAll("[id]")].map((one) => one.id)
            .filter((id, place, all) => all.indexOf(id) !== place),
          headings: [...document.querySelectorAll("h1, h2, h3")].map((one) => one.tagName).join(" "),
          live: document.querySelectorAll("[role=status], [aria-live], [role=alert]").length,
        })"""
    )
    assert (found["unnamed"], found["lost"], found["twice"]) == ([], [], [])
    assert re.fullmatch(r"H1( H2)+", found["headings"])
    assert found["live"] >= 2


def test_typing_gives_the_prediction_that_the_api_gives(open_page: OpenPage, servers: dict) -> None:
    page = open_page("plain")
    url = servers["plain"][0]
    answer = expect_answer(page, url, GOOD)
    page.locator("#fields").get_by_label("floor area").fill("60.25")
    changed = expect_answer(page, url, GOOD | {"floor area": 60.25})
    assert answer["prediction"] != changed["prediction"]
    assert page.locator("#headline data").inner_text() == f"{changed['prediction']:.6g}"
    expect(page.locator("#spoken")).to_contain_text("price: ")
    page.locator("#fields").get_by_label("floor area").fill("")
    expect_answer(page, url, GOOD | {"floor area": None})
    command = str(page.locator("#curl").text_content())
    assert command.startswith(f"curl '{url}/predict'")
    assert json.loads(command.partition("-d '")[2].removesuffix("'"))["floor area"] is None


def test_warnings_and_faults_stand_at_their_fields(open_page: OpenPage) -> None:
    page = open_page("plain")
    area, rooms = (page.locator("#fields").get_by_label(name) for name in ("floor area", "rooms"))
    area.fill("900")
    expect(page.locator(".findings")).to_contain_text("floor area: outside the range 20.5 to 78.5")
    expect(area).to_have_accessible_description(re.compile("outside the range"))
    area.fill("big")
    expect(area).to_have_attribute("aria-invalid", "true")
    expect(area).to_have_accessible_description(re.compile("expects a number"))
    rooms.fill("")
    expect(rooms).to_have_accessible_description(re.compile("is required"))
    expect(page.locator("#headline")).to_contain_text("some values do not fit")
    area.fill("41.5")
    rooms.fill("2")
    expect(page.locator("#headline data")).to_be_visible()
    expect(area).not_to_have_attribute("aria-invalid", "true")


def test_unknown_category_is_typed_and_warned_of(open_page: OpenPage, servers: dict) -> None:
    page = open_page("plain")
    page.locator("#fields").get_by_label("class").select_option("another value …")
    page.keyboard.type("zeppelin")
    expect(page.locator(".findings")).to_contain_text("class: unseen category")
    expect_answer(page, servers["plain"][0], GOOD | {"class": "zeppelin"})


def test_keyboard_alone_is_enough(open_page: OpenPage, servers: dict) -> None:
    page = open_page("plain")
    url = servers["plain"][0]
    page.locator("h1").click()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.labels?.[0]?.textContent") == "class":
            break
    page.keyboard.press("c")
    page.keyboard.press("Tab")
    page.keyboard.type("33")
    expect_answer(page, url, GOOD | {"class": "c", "floor area": 33})
    page.locator("#what-if input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    expect_answer(page, url, GOOD | {"class": "c", "floor area": float(read_field(page, "floor area"))})
    assert float(read_field(page, "floor area")) > 33
    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#headline")).to_contain_text("do not fit")


def read_field(page: Page, name: str) -> str:
    return page.locator("#fields").get_by_label(name).input_value()


def test_what_if_draws_what_the_api_answers(open_page: OpenPage, servers: dict) -> None:
    page = open_page("plain")
    url = servers["plain"][0]
    card = page.locator("#curves .card", has_text="floor area")
    expect(card.locator("svg .line")).to_have_count(1)
    rows = [GOOD | {"floor area": 20.5 + 58 * step / 24} for step in range(25)]
    answers = httpx.post(f"{url}/predict/batch", json=rows).json()["predictions"]
    values = [answer["prediction"] for answer in answers]
    words = re.compile(r"From ([\d.,]+) to ([\d.,]+) over floor area from 20.5 to 78.5")
    expect(card.locator("svg")).to_have_attribute("aria-label", words)
    drawn = words.fullmatch(str(card.locator("svg").get_attribute("aria-label")))
    assert [float(drawn[1]), float(drawn[2])] == pytest.approx([min(values), max(values)], abs=0.5)
    page.locator("#curves").get_by_role("radio", name=re.compile("^No ")).check()
    expect_answer(page, url, GOOD | {"has lift": False})
    assert page.locator("#fields").get_by_label("has lift").input_value() == "false"


def test_csv_comes_back_scored(open_page: OpenPage, servers: dict, tmp_path: Path) -> None:
    """More rows than one request takes, and one of them at fault."""
    url = servers["plain"][0]
    rows = [
        f'{number},"b",{20.5 + number % 58},{1 + number % 5},Yes,17.05.2001,"two\nlines, ""quoted""",1'
        for number in range(1500)
    ]
    rows[3] = rows[3].replace(",4,Yes", ",many,Yes")
    path = tmp_path / "homes.csv"
    path.write_text(",".join(small_models.COLUMNS) + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    page = open_page("plain")
    page.locator("#file").set_input_files(path)
    expect(page.locator("#file-state")).to_have_text(
        "1,500 rows scored. 1 row of them got no prediction: the column “error” says why.", timeout=20_000
    )
    assert page.locator("#first-rows tbody tr").count() == 10
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "homes_scored.csv"
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        scored = list(csv.DictReader(file))
    assert [int(row["row id"]) for row in scored] == list(range(1500))
    asked = GOOD | {"floor area": 20.5 + 1499 % 58, "rooms": 5}
    expected = httpx.post(f"{url}/predict", json=asked).json()["prediction"]
    assert float(scored[1499]["prediction"]) == pytest.approx(expected, rel=1e-12)
    assert scored[3]["prediction"] == ""
    assert "rooms" in scored[3]["error"]
    assert scored[7]["note"] == 'two\nlines, "quoted"'


def test_csv_that_does_not_fit_is_refused_in_words(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page("plain")
    for content, words in [
        (b"class,rooms\na,1\n", "floor area: is required"),
        (b"class\n\xff\xe4\n", "not text in UTF-8"),
    ]:
        (tmp_path / "bad.csv").write_bytes(content)
        page.locator("#file").set_input_files(tmp_path / "bad.csv")
        expect(page.locator("#file-state")).to_contain_text(words)
        expect(page.locator("#download")).to_be_hidden()


def test_names_and_values_are_never_markup(open_page: OpenPage, servers: dict) -> None:
    page = open_page("odd", key=KEY)
    row = {IMAGE: "b", "floor area": 41.5, "rooms": 2, QUOTED: True, "_built": "2001-05-17"}
    answer = expect_answer(page, servers["odd"][0], row)
    assert page.locator("#fields label").all_inner_texts() == list(row)
    shares = page.locator(".shares data").evaluate_all("(all) => all.map((one) => Number(one.value))")
    assert shares == sorted(answer["probabilities"].values(), reverse=True)
    page.locator("#fields").get_by_label(IMAGE).select_option("<b>a</b>")
    expect_answer(page, servers["odd"][0], row | {IMAGE: "<b>a</b>"})
    page.locator("#fields").get_by_label("rooms").fill("9")
    expect(page.locator(".findings")).to_contain_text("rooms: outside")
    assert page.locator("img, #fields b, #what-if .name b").count() == 0


def test_key_is_asked_for_and_kept_for_the_tab(open_page: OpenPage) -> None:
    page = open_page("odd", ready="#key")
    expect(page.locator("#main")).to_be_hidden()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-fault")).to_have_text("The server does not know this key.")
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#headline data")).to_be_visible()
    expect(page.locator("#curl")).to_contain_text("X-API-Key: $API_KEY")
    page.reload()
    expect(page.locator("#headline data")).to_be_visible()
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("button", name="Report").click()
    expect(page.locator("h1")).to_have_text("The report")
    assert KEY not in page.url
    assert page.locator("h1").evaluate("(one) => getComputedStyle(one).color") == "rgb(255, 0, 0)"


def test_page_works_below_a_prefix(open_page: OpenPage) -> None:
    page = open_page("plain", prefix="/behind/a/proxy/")
    assert float(read_value(page))
    assert "/behind/a/proxy/predict" in str(page.locator("#curl").text_content())


def test_without_scripts_the_page_says_so(open_page: OpenPage) -> None:
    page = open_page("plain", ready="noscript", java_script_enabled=False)
    assert "JavaScript" in page.locator("noscript").inner_text()
    expect(page.locator("#main")).to_be_hidden()


def test_nothing_is_wider_than_the_screen(open_page: OpenPage) -> None:
    page = open_page("odd", key=KEY, viewport={"width": 1440, "height": 800})
    expect(page.locator("#curves svg .line").first).to_be_visible()
    for width in (1440, 820, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_another_model_is_noticed_and_keeps_what_was_typed(open_page: OpenPage, servers: dict) -> None:
    url, root = servers["plain"]
    page = open_page("plain")
    page.locator("#fields").get_by_label("floor area").fill("50")
    expect_answer(page, url, GOOD | {"floor area": 50})
    with use_trees():
        write_small_model(root / "models", version="2" * 12, shift=1000)
    end = time.monotonic() + 20
    while httpx.get(f"{url}/ready").json()["model_version"] != "2" * 12:
        assert time.monotonic() < end, "timed out"
    page.locator("#fields").get_by_label("floor area").fill("55")
    expect(page.locator("#notices")).to_contain_text("Another model answers now: 222222222222.")
    page.get_by_role("button", name="Load its form").click()
    expect(page.locator("#kicker")).to_contain_text("222222222222")
    assert read_field(page, "floor area") == "55"
    expect(page.locator("#notices")).to_be_empty()
    expect_answer(page, url, GOOD | {"floor area": 55})
