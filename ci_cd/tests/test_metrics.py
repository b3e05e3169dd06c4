"""What the API counts: the numbers of all workers, also of those that were killed."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPException

import pytest
from compiled_models import write_compiled_model
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import shared_folder, slots
from app.metrics.counters import Metrics

if os.name == "posix":
    from running_server import ROW, run_server, wait_until


def parse(content):
    """Return the samples by name and labels, which are sorted by their names."""
    families = text_string_to_metric_families(content.decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def read(metrics):
    content, kind = metrics.render()
    assert kind.startswith("text/plain; version=0.0.4")
    return parse(content)


@pytest.fixture
def start():
    """Start metrics in a folder as a worker does, and stop them in the end."""
    started = []

    def start_metrics(folder):
        metrics = Metrics(folder)
        metrics.start()
        started.append(metrics)
        return metrics

    yield start_metrics
    for metrics in started:
        metrics.stop()


def use_fully(metrics):
    metrics.set_model("0123456789ab")
    metrics.count_load("served")
    metrics.enter()
    metrics.observe("/predict", 200, 0.00005)
    metrics.observe("/predict", 422, 0.0004)
    metrics.observe("other", 404, 60.0)
    metrics.count_rows(3, 1)
    metrics.count_warnings({('a "b"\\\n', "missing"): 2, ("ä", "unseen"): 1})


def test_metrics_of_one_process_show_what_was_counted():
    metrics = Metrics()
    use_fully(metrics)
    seen = read(metrics)
    assert seen["model_api_requests_total", "/predict", "200"] == 1
    assert seen["model_api_requests_total", "other", "404"] == 1
    assert seen["model_api_request_seconds_bucket", "5e-05", "/predict"] == 1  # bounds are inclusive
    assert seen["model_api_request_seconds_bucket", "0.0003", "/predict"] == 1
    assert seen["model_api_request_seconds_bucket", "0.0005", "/predict"] == 2
    assert seen["model_api_request_seconds_count", "/predict"] == 2
    assert seen["model_api_request_seconds_sum", "/predict"] == pytest.approx(0.00045)
    assert seen["model_api_request_seconds_bucket", "10.0", "other"] == 0
    assert seen["model_api_request_seconds_bucket", "+Inf", "other"] == 1
    assert seen["model_api_requests_in_flight",] == 1
    assert (seen["model_api_rows_total", "answered"], seen["model_api_rows_total", "refused"]) == (3, 1)
    assert seen["model_api_warnings_total", 'a "b"\\\n', "missing"] == 2
    assert seen["model_api_model_info", "0123456789ab"] == 1
    assert (seen["model_api_model_loads_total", "served"], seen["model_api_model_loads_total", "refused"]) == (1, 0)
    assert seen["model_api_workers",] == 1


def test_promtool_finds_nothing_in_the_metrics():
    promtool = shutil.which("promtool") or pytest.skip("promtool is not on this machine (Debian's package prometheus)")
    metrics = Metrics()
    use_fully(metrics)
    done = subprocess.run([promtool, "check", "metrics"], input=metrics.render()[0], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_workers_of_a_folder_are_shown_together_and_gauges_end_with_their_worker(tmp_path, start):
    first, second = start(tmp_path), start(tmp_path)
    for metrics in (first, second):
        use_fully(metrics)
    second.set_model("ba9876543210")
    seen = read(first)
    assert seen["model_api_requests_total", "/predict", "200"] == 2
    assert seen["model_api_request_seconds_count", "/predict"] == 4
    assert seen["model_api_requests_in_flight",] == 2
    assert (seen["model_api_model_info", "0123456789ab"], seen["model_api_model_info", "ba9876543210"]) == (1, 1)
    assert seen["model_api_workers",] == 2
    second.stop()
    seen = read(first)
    assert seen["model_api_requests_total", "/predict", "200"] == 2
    assert (seen["model_api_requests_in_flight",], seen["model_api_workers",]) == (1, 1)
    assert ("model_api_model_info", "ba9876543210") not in seen


def test_the_next_worker_goes_on_in_the_file_of_a_dead_one(tmp_path, start):
    first = start(tmp_path)
    use_fully(first)
    first.stop()
    (file,) = tmp_path.iterdir()
    with file.open("ab") as names:
        names.write(b'["requests", "/torn')  # killed while it wrote a name
    second = start(tmp_path)
    seen = read(second)
    assert (seen["model_api_requests_in_flight",], seen["model_api_workers",]) == (0, 1)
    assert not [key for key in seen if key[0] == "model_api_model_info"]
    use_fully(second)
    second.observe("/new", 200, 0.1)
    third = start(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    seen = read(third)
    assert seen["model_api_requests_total", "/predict", "200"] == 2
    assert seen["model_api_requests_total", "/new", "200"] == 1
    assert seen["model_api_warnings_total", "ä", "unseen"] == 2


def test_rows_are_counted_exactly_by_many_threads(tmp_path, start):
    metrics = start(tmp_path)

    def count_some(number):
        for _ in range(5_000):
            metrics.count_rows(1, 2)
            metrics.count_warnings({(f"f{number}", "missing"): 1, ("shared", "unseen"): 1})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_some, range(4)))
    seen = read(metrics)
    assert (seen["model_api_rows_total", "answered"], seen["model_api_rows_total", "refused"]) == (20_000, 40_000)
    assert seen["model_api_warnings_total", "shared", "unseen"] == 20_000
    assert seen["model_api_warnings_total", "f3", "missing"] == 5_000


def test_names_without_room_are_not_counted_and_the_log_says_so_once(caplog, monkeypatch):
    monkeypatch.setattr(slots, "CAPACITY", 200)
    metrics = Metrics()
    metrics.count_warnings({(f"feature {number}", "missing"): 1 for number in range(200)})
    metrics.observe("/late", 200, 99.0)
    metrics.count_rows(1, 0)
    seen = read(metrics)
    assert caplog.text.count("are not counted, for all 200 counters are in use") == 1
    assert seen["model_api_warnings_total", "feature 0", "missing"] == 1
    assert ("model_api_requests_total", "/late", "200") not in seen
    assert seen["model_api_rows_total", "answered"] == 1


def test_without_a_folder_each_worker_counts_for_itself_and_the_log_says_so(tmp_path, start, caplog):
    (tmp_path / "file").touch()
    metrics = start(tmp_path / "file")
    assert "Set METRICS_DIR to a folder." in caplog.text
    metrics.count_rows(1, 0)
    assert read(metrics)["model_api_rows_total", "answered"] == 1


def test_workers_without_any_folder_say_so_and_a_process_alone_does_not(monkeypatch, caplog):
    monkeypatch.setattr(shared_folder, "list_bases", list)
    Metrics().start()
    assert not caplog.text
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    Metrics().start()
    assert "cannot write temporary files: /metrics shows one worker at a time" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="this system has no such links")
def test_links_of_others_are_not_followed(tmp_path, start):
    start(tmp_path / "probe")
    (name,) = (path.name for path in (tmp_path / "probe").iterdir())
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / name).symlink_to(tmp_path / "victim")
    start(tmp_path / "shared").count_rows(1, 0)
    assert (tmp_path / "victim").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    (tmp_path / "open").mkdir(0o755)
    for folder in ("link", "open"):
        with pytest.raises(PermissionError, match="belongs to somebody else"):
            shared_folder.make_folder(tmp_path / folder, is_private=True)


@pytest.mark.skipif(os.name != "posix", reason="this system cannot tell which processes run")
def test_only_folders_of_servers_that_are_gone_are_swept(tmp_path, start):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    names = {f"{child.pid}-dead": False, f"{child.pid}-counting": True, f"{os.getpid()}-new": True}
    for name in names:
        (tmp_path / f"model-api-{name}").mkdir(0o700)
    start(tmp_path / f"model-api-{child.pid}-dead").stop()
    start(tmp_path / f"model-api-{child.pid}-counting")
    (tmp_path / f"model-api-{child.pid}-link").symlink_to(tmp_path)
    (tmp_path / "model-api-notes-x").mkdir(0o700)
    shared_folder.sweep_leftovers(tmp_path)
    kept = sorted(path.name.removeprefix("model-api-") for path in tmp_path.iterdir())
    assert kept == sorted([name for name, stays in names.items() if stays] + [f"{child.pid}-link", "notes-x"])


# Real workers


def read_workers(server, number):
    """Return the metrics once so many workers live and serve the model."""
    seen = {}

    def has_workers():
        try:
            with server.open_http() as client:
                client.request("GET", "/metrics")
                seen.clear()
                seen.update(parse(client.getresponse().read()))
        except (OSError, HTTPException):  # asked of the one that was killed
            return False
        counts = seen["model_api_workers",], seen.get(("model_api_model_info", "0123456789ab"))
        return counts == (number, number)

    wait_until(has_workers, timeout_s=120)
    return seen


@contextmanager
def begin_requests(server, number):
    """Send the beginning of so many requests, each on a connection of its own, and give the connections."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect(timeout_s=0.2)) for _ in range(number)]
        for connection in connections:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n")
        yield connections


def is_open(connection):
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def remove_folder(server):
    """Remove what the next server would have swept."""
    for base in shared_folder.list_bases():
        for left in base.glob(f"model-api-{server.process.pid}-*"):
            shutil.rmtree(left)


@pytest.mark.skipif(os.name != "posix", reason="this system has no kill -9")
def test_sums_stay_exact_and_gauges_vanish_when_a_worker_is_killed(tmp_path):
    write_compiled_model(tmp_path)
    with run_server(tmp_path, WEB_CONCURRENCY=2, READ_TIMEOUT_S=600) as server:
        try:
            read_workers(server, 2)
            for _ in range(150):
                assert server.ask("/predict", ROW)[0] == 200
            with begin_requests(server, 8) as connections:
                wait_until(lambda: read_workers(server, 2)["model_api_requests_in_flight",] == 9)  # with /metrics
                killed = int(re.search(r"Started server process \[(\d+)\]", server.stderr.read_text())[1])
                os.kill(killed, signal.SIGKILL)
                read_workers(server, 1)
                seen = read_workers(server, 2)
                assert seen["model_api_requests_in_flight",] == 1 + sum(map(is_open, connections))
            for _ in range(150):
                assert server.ask("/predict", ROW)[0] == 200
            seen = read_workers(server, 2)
            assert seen["model_api_rows_total", "answered"] == 300
            assert seen["model_api_requests_total", "/predict", "200"] == 300
        finally:
            remove_folder(server)
