"""bench_api.py, as far as that needs no other servers and no quiet machine."""

import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import ClassVar

import pytest
from conftest import REPOSITORY, run_script

SCRIPT = "ci_cd/benchmarks/bench_api.py"
sys.path.append(str(REPOSITORY / "ci_cd/benchmarks"))
bench = import_module("bench_api")
load = import_module("api_load")
models = import_module("api_model")
peers = import_module("api_peers")
processes = import_module("api_processes")
report = import_module("api_report")

SERVERS = {server.key: server for server in peers.list_servers()}
ROWS = [{"n": 1.5, "count": 2, "kind": "a"}, {"n": -1.0, "count": 3, "kind": "b"}]
FAST = load.Load(rate=1000.0, p50_ms=1.0, p99_ms=2.5)
TURN = report.Turn(cold_s=0.5, memory_bytes=90_000_000, loads={1: FAST, 16: FAST}, batch=FAST, others=0.1)


class Handler(BaseHTTPRequestHandler):
    """Answers as our API does, the first number of a row times two; 503 for so many requests first."""

    protocol_version = "HTTP/1.1"
    refusals: ClassVar[list[int]] = []
    seen: ClassVar[set[bytes]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.add(body)
        status = self.refusals.pop() if self.refusals else 200
        rows = json.loads(body)
        one = isinstance(rows, dict)
        answers = [{"prediction": 2 * row["n"]} for row in ([rows] if one else rows)]
        content = json.dumps(answers[0] if one else {"predictions": answers}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Return the address of a small server."""
    Handler.refusals.clear()
    Handler.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def make_race(**turns: list[report.Turn]) -> report.Race:
    """Return a race of the servers that have turns."""
    servers = [server for server in SERVERS.values() if server.key in turns]
    return report.Race(servers, "200 trees", 4000, 1000, turns)


def change_rate(rate: float) -> report.Turn:
    """Return a turn in which all loads have this rate."""
    fast = replace(FAST, rate=rate)
    return replace(TURN, loads={1: fast, 16: fast}, batch=fast)


def is_there(children: dict[int, str]) -> bool:
    """Return whether one of the processes has not gone."""
    return any(processes.read_start(pid) == started for pid, started in children.items())


# What is sent, and what comes back


@pytest.mark.parametrize("key", [key for key in SERVERS if key != "bare"])
def test_bodies_hold_all_values_of_the_rows(key):
    bodies = [load.encode_body(SERVERS[key].single, ROWS[:1]), load.encode_body(SERVERS[key].many, ROWS)]
    values = [[1.5, 2, "a"], [1.5, 2, "a", -1.0, 3, "b"]]
    for body, expected in zip(bodies, values, strict=True):
        assert all(json.dumps(value).encode() in body for value in expected)
        assert b"\n" not in body


def test_columns_of_the_inference_protocol_have_their_types():
    inputs = peers.build_columns(ROWS)["inputs"]
    assert [(item["name"], item["datatype"], item["shape"], item["data"]) for item in inputs] == [
        ("n", "FP64", [2], [1.5, -1.0]),
        ("count", "INT64", [2], [2, 3]),
        ("kind", "BYTES", [2], ["a", "b"]),
    ]


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("mlflow", {"predictions": [1.0, 2.0]}),
        ("bentoml", [1.0, 2.0]),
        ("mlserver", {"outputs": [{"data": [1.0, 2.0]}]}),
        ("litserve", {"predictions": [1.0, 2.0]}),
        ("fastapi", {"predictions": [1.0, 2.0]}),
        ("ours", {"predictions": [{"prediction": 1.0}, {"prediction": 2.0}]}),
    ],
)
def test_answers_are_found(key, answer):
    assert SERVERS[key].many.read_answers(answer) == [1.0, 2.0]


def test_bodies_of_a_load_are_full_ones(tmp_path):
    load.write_bodies(tmp_path / "bodies", SERVERS["fastapi"].many, [*ROWS, ROWS[0]], 2)
    assert [json.loads(line) for line in (tmp_path / "bodies").read_text().splitlines()] == [ROWS]


def test_rows_differ_and_have_twelve_features_of_which_three_are_categories():
    rows = models.make_rows(500, seed=1)
    features = [{name: value for name, value in row.items() if name != models.TARGET} for row in rows]
    assert {len(row) for row in features} == {12}
    assert len({tuple(row.values()) for row in features}) == 500
    assert sum(isinstance(value, str) for value in features[0].values()) == 3
    assert rows == models.make_rows(500, seed=1)


# Asking


def test_an_answer_like_ours_passes(url):
    model = models.Model(REPOSITORY, ROWS, [3.0, -2.0], "")
    bench.check_answers(SERVERS["ours"], url, model)


def test_an_answer_unlike_ours_is_refused(url):
    model = models.Model(REPOSITORY, ROWS, [3.0, -2.0000001], "")
    with pytest.raises(bench.BenchError, match="2 answers to 2 rows one by one, 1 of them not ours"):
        bench.check_answers(SERVERS["ours"], url, model)


def test_a_status_other_than_200_is_shown(url):
    Handler.refusals.append(422)
    with pytest.raises(bench.BenchError, match="status 422 for 1 rows"):
        load.ask(url, SERVERS["ours"].single, ROWS[:1])


def test_an_answer_that_cannot_be_read_is_shown(url):
    with pytest.raises(bench.BenchError, match="cannot be read"):
        load.ask(url, SERVERS["ours"].single, [{"n": "not a number"}])


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk makes the load, and is not installed")
def test_wrk_posts_another_row_each_time_and_counts_refusals(url, tmp_path):
    load.write_bodies(tmp_path / "bodies", SERVERS["ours"].single, ROWS, 1)
    Handler.refusals.extend([503, 503])
    done = load.run_wrk(f"{url}/predict", tmp_path / "bodies", 1, 1)
    assert (done.refused, done.broken, done.late, done.is_void) == (2, 0, 0, True)
    assert done.rate > 1
    assert 0 < done.p50_ms <= done.p99_ms
    assert {json.loads(body)["n"] for body in Handler.seen} == {1.5, -1.0}


# Starting and ending


def test_the_first_answer_is_the_first_with_status_200(url):
    Handler.refusals.extend([503, 404])
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with processes.run_server(command, {}, REPOSITORY) as process:
        body = load.encode_body(SERVERS["ours"].single, ROWS[:1])
        assert processes.await_answer(process, f"{url}/predict", body, time.monotonic()) > 0
        assert not Handler.refusals
    assert process.returncode is not None


def test_a_server_that_ends_says_its_last_line(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    port = processes.find_ports()[0]
    with (
        pytest.raises(bench.BenchError, match="ended with exit code 1 before it answered; it said: no such model"),
        processes.run_server(command, {}, tmp_path) as process,
    ):
        processes.await_answer(process, f"http://127.0.0.1:{port}/", b"{}", time.monotonic())


@pytest.mark.skipif(not processes.Path("/proc/self/stat").exists(), reason="children are found on Linux alone")
def test_children_in_sessions_of_their_own_are_ended_too(tmp_path):
    child = "import time; time.sleep(60)"
    parent = (
        "import subprocess, sys, time, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit());"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True); print('up', flush=True);"
        "time.sleep(60)"
    )
    with processes.run_server([sys.executable, "-c", parent], {}, tmp_path) as process:
        deadline = time.monotonic() + 30
        while not (children := processes.find_children(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert processes.read_memory(process.pid) > 1_000_000
        assert processes.read_worked_s(process.pid) >= 0
    assert len(children) == 1
    while (left := is_there(children)) and time.monotonic() < deadline:  # whoever reaps orphans takes its time
        time.sleep(0.01)
    assert not left


def test_ports_are_three():
    assert len(set(processes.find_ports())) == 3


# The page


def test_page_shows_ratios_to_the_bound_and_to_ours():
    race = make_race(bare=[change_rate(4000)], ours=[TURN], mlflow=[change_rate(20)], bentoml=[change_rate(10)])
    page = report.format_page(race, {"mlflow": "3.0"}, "--rounds 1")
    assert "| bare uvicorn | 4,000 | 1.0 ms | 2.5 ms |  | 0.25 |" in page
    assert "| ours | 1,000 | 1.0 ms | 2.5 ms | 25.0% |  |" in page
    assert "| MLflow | 20 | 1.0 ms | 2.5 ms | 0.5% | 50 |" in page
    assert "| MLflow | 20,000 | 1.0 ms | 50 |" in page
    assert "| the fastest peer | 50 (MLflow) | 50 (MLflow) | 50 (MLflow) |" in page
    assert "| ours | 0.50 s | 90 MB |" in page
    assert "bench_api.py --rounds 1`" in page
    assert "mlflow 3.0." in page


def test_the_median_of_the_turns_counts():
    race = make_race(ours=[change_rate(rate) for rate in (1, 5, 3)])
    assert race.find_rate("ours", 16) == 3


def test_a_load_with_errors_is_void_and_shown():
    bad = replace(TURN, loads={1: FAST, 16: replace(FAST, refused=3, late=1)})
    race = make_race(ours=[TURN], mlflow=[TURN, bad])
    assert race.find_rate("mlflow", 1) == 1000
    assert race.find_rate("mlflow", 16) is None
    page = report.format_page(race, {}, "")
    assert "| MLflow | void: 3 refused, 1 late |  |  |  |  |" in page
    assert "VOID" in report.describe_turn(bad)


def test_a_server_that_is_out_is_named_with_the_reason():
    race = make_race(ours=[TURN], mlflow=[TURN])
    race.notes["mlflow"] = "no answer within 60 s"
    page = report.format_page(race, {}, "")
    assert "MLflow: out, no answer within 60 s." in page
    assert "| MLflow |" not in page


@pytest.mark.parametrize(("ratio", "text"), [(0.256, "0.26"), (2.34, "2.3"), (48.6, "49"), (1234.0, "1,234")])
def test_ratios_have_two_digits_that_tell_something(ratio, text):
    assert report.format_ratio(ratio) == text


# The command line


def test_bench_api_help_names_its_flags():
    done = run_script(SCRIPT, ["--help"])
    assert (done.returncode, done.stderr) == (0, "")
    flags = re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)
    assert flags == ["--servers", "--rounds", "--seconds", "--folder", "--page"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--servers", "ours,tomcat"], "--servers: expects some of bare, ours, .*, got tomcat"),
        (["--rounds", "0"], "--rounds: expects 1 or more, got 0"),
        (["--seconds", "0"], "--seconds: expects 1 or more, got 0"),
    ],
)
def test_bench_api_refuses_what_it_cannot_run(flags, message):
    done = run_script(SCRIPT, flags)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
