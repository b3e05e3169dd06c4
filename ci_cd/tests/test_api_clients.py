"""Clients that are slow, stop half-way, or speak HTTP in unusual ways; and how the server stops before them."""

import http.client
import json
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running_server import ROW, Running, ask, read_all, run_server, wait_until, write_light_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
WITH_LENGTH = HEAD + b"content-length: %d\r\n\r\n" % len(ROW)
BATCH = b"[" + b",".join([ROW] * 1000) + b"]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    write_light_model(folder)
    with run_server(folder, READ_TIMEOUT_S=1, WRITE_TIMEOUT_S=1) as server:
        yield server


def read_answers(content: bytes) -> list[tuple[int, dict]]:
    """Return status and body of answers that follow each other."""
    answers = []
    while content:
        head, _, rest = content.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        answers.append((int(head.split()[1]), json.loads(rest[:length])))
        content = rest[length:]
    return answers


def test_fifty_clients_that_stop_half_way_are_cut_off_and_hold_up_nobody(server: Running) -> None:
    beginnings = [b"", b"POST /pre", HEAD, WITH_LENGTH, WITH_LENGTH + ROW[:1]]
    stopped = [(server.connect(), beginnings[number % 5]) for number in range(50)]
    for connection, content in stopped:
        connection.sendall(content)
    with server.open_http() as other:
        assert [ask(other, "/predict", ROW)[0] for _ in range(50)] == [200] * 50
    for connection, content in stopped:
        answers = read_answers(read_all(connection))
        assert [(status, answer["code"]) for status, answer in answers] == [(408, "too_slow")] * bool(content)
        connection.close()
    wait_until(lambda: server.stdout.read_text().count('"status":408') == 40)  # those that had begun


def test_client_that_sends_byte_by_byte_is_cut_off_though_never_idle(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(WITH_LENGTH)
        sent = 0
        with suppress(OSError):
            while sent < 2 * len(ROW):
                connection.sendall(b" ")
                sent += 1
                time.sleep(0.05)
        assert 10 < sent < len(ROW)


def test_next_request_on_a_kept_connection_has_to_come_whole_too(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(WITH_LENGTH + ROW)
        time.sleep(0.2)
        connection.sendall(HEAD)
        assert [status for status, _ in read_answers(read_all(connection))] == [200, 408]


def test_client_that_does_not_read_its_answers_is_cut_off(server: Running) -> None:
    request = HEAD.replace(b"/predict", b"/predict/batch") + b"content-length: %d\r\n\r\n" % len(BATCH) + BATCH
    with server.connect(SO_RCVBUF=4096) as connection:

        def send_many() -> None:
            try:
                for _ in range(100):
                    connection.sendall(request)
            except OSError:
                return

        sender = threading.Thread(target=send_many)
        sender.start()
        sender.join(30)  # ends when the connection is cut off
        assert not sender.is_alive()
    assert server.ask("/predict", ROW)[0] == 200


def test_pipelined_requests_are_answered_in_their_order(server: Running) -> None:
    close = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(WITH_LENGTH + ROW + b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n" + close)
        assert [status for status, _ in read_answers(read_all(connection))] == [200, 404, 200]


def test_client_that_asks_whether_to_go_on_is_told_so(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(WITH_LENGTH.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ROW)
        assert [status for status, _ in read_answers(read_all(connection))] == [200]


@pytest.mark.parametrize("header", [b"x: " + b"y" * 16_384, b"\r\n".join(b"x-%d: y" % number for number in range(200))])
@pytest.mark.parametrize("path", [b"/predict", b"/health"])
def test_long_headers_are_refused(server: Running, path: bytes, header: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + header + b"\r\n\r\n")
        [(status, answer)] = read_answers(read_all(connection))
    assert (status, answer["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("start", [b"POST /predict HTTP/1.1\r\nx: ", b"GET /"])
def test_headers_without_end_are_cut_off_before_they_are_read(server: Running, start: bytes) -> None:
    """uvicorn would join them anew with every piece: 64 MB took it five seconds."""
    before = server.stdout.read_text().count('"status":431')
    with server.connect() as connection:
        connection.sendall(start)
        sent = 0
        with suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"y" * 65_536)
                sent += 65_536
    assert sent < 8_000_000  # what the system itself holds
    wait_until(lambda: server.stdout.read_text().count('"status":431') > before)  # the log is written now and then


def test_what_is_no_http_is_refused_in_the_one_form(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01\r\n\r\n")
        content = read_all(connection)
        [(status, answer)] = read_answers(content)
    assert (status, answer["code"]) == (400, "bad_request")
    assert b"x-request-id: " in content
    assert b"x-content-type-options: nosniff" in content


def test_web_socket_is_no_way_to_get_a_query_into_the_log(server: Running) -> None:
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n"
    with server.connect() as connection:
        connection.sendall(b"GET /predict?ssn=123-45 HTTP/1.1\r\nhost: x\r\n" + upgrade + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 405")
    wait_until(lambda: '"status":405' in server.stdout.read_text())
    assert "123-45" not in server.stdout.read_text() + server.stderr.read_text()


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/predict"), ("OPTIONS", "/predict/batch"), ("POST", "//predict")]
)
def test_unusual_method_or_path_is_refused(server: Running, method: str, path: str) -> None:
    with server.open_http() as client:
        client.request(method, path)
        answer = client.getresponse()
        assert answer.status == (404 if path.startswith("//") else 405)
        assert len(answer.read()) <= 4096
        assert answer.headers["x-request-id"]


def is_open(server: Running) -> bool:
    """Whether anybody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


class Caller(threading.Thread):
    """A client of a load balancer: it keeps its connection while it may, and asks nobody who is not ready."""

    def __init__(self, server: Running, is_over: threading.Event) -> None:
        super().__init__()
        self.server = server
        self.is_over = is_over
        self.answered = 0
        self.lost: list[str] = []

    def run(self) -> None:
        bodies = {"/predict": ROW, "/predict/batch": b"[" + ROW + b"]"}
        with self.server.open_http() as client:
            while not self.is_over.is_set():
                for path, body in bodies.items():
                    try:
                        status, answer = ask(client, path, body)
                    except (OSError, http.client.HTTPException) as err:
                        self.lost.append(repr(err))
                    else:
                        self.answered += 1
                        self.lost += [] if status == 200 else [str(answer)]


@pytest.mark.parametrize("workers", [1, 2])
def test_stopping_under_load_loses_nothing_and_waits_for_no_slow_client(tmp_path: Path, workers: int) -> None:
    write_light_model(tmp_path)
    with run_server(tmp_path, WEB_CONCURRENCY=workers, SHUTDOWN_DELAY_S=1) as server:
        slow = [server.connect() for _ in range(10)]
        for number, connection in enumerate(slow):
            connection.sendall([b"", HEAD, WITH_LENGTH][number % 3])
        is_over = threading.Event()
        callers = [Caller(server, is_over) for _ in range(8)]
        for caller in callers:
            caller.start()
        wait_until(lambda: min(caller.answered for caller in callers) > 10)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask("/ready")[0] == 503)
        assert server.ask("/ready")[1]["code"] == "stopping"
        assert server.ask("/health")[0] == 200
        is_over.set()
        for caller in callers:
            caller.join()
        assert [caller.lost for caller in callers] == [[]] * 8
        assert server.process.wait(timeout=20) == 0
        for connection in slow:
            connection.close()
    assert "Traceback" not in server.stderr.read_text()


def test_request_that_is_under_way_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    write_light_model(tmp_path)
    with run_server(tmp_path) as server, server.connect() as connection:
        connection.sendall(WITH_LENGTH + ROW[:-1])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_open(server))
        connection.sendall(ROW[-1:])
        answer = read_all(connection)
        assert [status for status, _ in read_answers(answer)] == [200]
        assert b"connection: close" in answer
        assert server.process.wait(timeout=20) == 0


def test_long_body_has_time_as_long_as_it_comes(server: Running) -> None:
    body = b" " * 1_000_000 + b"[" + ROW + b"]"
    head = HEAD.replace(b"/predict", b"/predict/batch") + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    with server.connect() as connection:
        connection.sendall(head)
        for start in range(0, len(body), 100_000):
            connection.sendall(body[start : start + 100_000])
            time.sleep(0.2)  # 2 s together, and a request has but one
        [(status, answer)] = read_answers(read_all(connection))
    assert (status, answer["errors"]) == (200, [])
