"""More than a worker can do: refused at once and in words, while the rest is answered and the server stays well."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from running_server import ROW, wait_until, write_light_model
from small_models import GOOD
from starlette.types import Message
from uvicorn import Config, Server

from app.front.accepting import Acceptor
from app.front.overload import Admission, HeavyRequest, Refused
from app.main import create_app
from app.settings import Settings

BATCH = f"[{ROW.decode()}]".encode()
JSON = {"Content-Type": "application/json"}


@contextmanager
def serve(folder: Path, **settings: object) -> Iterator[TestClient]:
    app = create_app(Settings(model_dir=folder, access_log=False, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_light_model(folder)
    return folder


@contextmanager
def hold_predictions(patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have predictions of batches wait, each in its thread, until the event is set."""
    import app.batches.answering

    release, answer = threading.Event(), app.batches.answering.answer_slice

    def wait_and_answer(*args: object) -> object:
        release.wait(30)
        return answer(*args)

    patch.setattr("app.batches.answering.answer_slice", wait_and_answer)
    try:
        yield release
    finally:
        release.set()


def check_overloaded(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["model_version"] == "0123456789ab"


def test_batches_wait_for_their_turn_and_are_refused_when_too_many_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serve(folder, max_batches=1) as client,
        hold_predictions(monkeypatch) as release,
        ThreadPoolExecutor(9) as pool,
    ):
        asked = [pool.submit(client.post, "/predict/batch", content=BATCH, headers=JSON) for _ in range(9)]
        wait_until(lambda: client.app.admission.waiting == 8)
        for _ in range(3):
            check_overloaded(client.post("/predict/batch", content=BATCH, headers=JSON))
        assert client.post("/predict", json=GOOD).status_code == 200  # a light row waits for no batch
        assert {client.get(path).status_code for path in ("/health", "/ready", "/metrics", "/model")} == {200}
        assert not any(each.done() for each in asked)
        release.set()
        assert [each.result().status_code for each in asked] == [200] * 9
        assert client.post("/predict/batch", content=BATCH, headers=JSON).status_code == 200
        assert (client.app.admission.waiting, client.app.admission.kept) == (0, 0)


def test_bodies_that_together_are_too_long_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b" " * 5_000 + BATCH
    with serve(folder, max_batches=4, max_body_bytes=6_000) as client, hold_predictions(monkeypatch) as release:
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(client.post, "/predict/batch", content=content, headers=JSON) for _ in range(4)]
            wait_until(lambda: client.app.admission.kept > 3 * 6_000)
            check_overloaded(client.post("/predict/batch", content=content, headers=JSON))
            release.set()
            assert [each.result().status_code for each in asked] == [200] * 4
        assert client.post("/predict/batch", content=content, headers=JSON).status_code == 200
        assert client.app.admission.kept == 0


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_endless_body_that_is_refused_ends_the_connection(
    folder: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(Admission, "has_room_for_heavy", lambda *args: False)
    with serve(folder) as client:
        chunked = client.post(path, content=iter([ROW]), headers=JSON)
        sized = client.post("/predict/batch", content=BATCH, headers=JSON)
    check_overloaded(chunked)
    assert (chunked.headers.get("connection"), sized.headers.get("connection")) == ("close", None)


def test_burst_of_single_rows_is_answered_up_to_the_limit(folder: Path) -> None:
    app = create_app(Settings(model_dir=folder, access_log=False, max_pending=1))

    async def ask_at_once() -> list[httpx.Response]:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")
        async with app.fastapi.router.lifespan_context(app.fastapi), client:
            return await asyncio.gather(*(client.post("/predict", content=ROW, headers=JSON) for _ in range(20)))

    answers = asyncio.run(ask_at_once())
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 1 <= len(refused) <= 12
    for answer in refused:
        check_overloaded(answer)
    assert json.loads(answers[0].content)["model_version"] == "0123456789ab"


def test_load_that_lasts_gets_less_room_than_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.front.overload.BURST_S", -1.0)
    monkeypatch.setattr("app.front.overload.CALM_S", -1.0)

    async def ask_in_rounds(numbers: list[int]) -> list[int]:
        admission = Admission(max_pending=2, max_batches=1, max_body_bytes=1)
        taken = []
        for number in numbers:
            taken.append(sum(admission.has_room_for_light() for _ in range(number)))
            await asyncio.sleep(0)
        return taken

    # a burst, a load that lasts, and calm
    assert asyncio.run(ask_in_rounds([20, 20, 2, 20])) == [16, 2, 2, 16]


def test_client_that_does_not_heed_retry_after_is_kept_waiting() -> None:
    async def refuse() -> tuple[bool, bool, bool]:
        refused = Refused(each_s=50)
        tasks = []
        for client in (("a", 1), ("b", 1), ("a", 1)):
            tasks.append(asyncio.create_task(refused.hold(client)))
            await asyncio.sleep(0.01)
        done = tuple(task.done() for task in tasks)
        assert refused.held == 1
        tasks[-1].cancel()
        return done

    assert asyncio.run(refuse()) == (True, True, False)


def test_connections_that_come_at_once_are_taken_on_at_once(folder: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def connect_many() -> list[bytes]:
        app = create_app(Settings(model_dir=folder, access_log=False))
        server = Server(Config(app, loop="uvloop", port=0, log_level="warning"))
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            address = listener.getsockname()
            clients = [socket.create_connection(address) for _ in range(60)]  # the kernel lets them wait in its queue
            acceptor = Acceptor(server)
            for _ in range(3):
                acceptor.accept(20)
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(server.server_state.connections) >= 60  # uvloop alone would have taken three
            for client in clients:
                client.setblocking(False)
                client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            loop = asyncio.get_running_loop()
            answers = [await loop.sock_recv(client, 12) for client in clients]
            for client in clients:
                client.close()
            server.should_exit = True
            await serving
        acceptor.accept(20)
        with pytest.raises(ConnectionRefusedError):  # nothing holds the queue open
            socket.create_connection(address)
        return answers

    assert uvloop.run(connect_many()) == [b"HTTP/1.1 200"] * 60


def test_client_that_is_slow_to_take_an_answer_gives_its_turn_to_others() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"[]", "more_body": False}

    async def overtake() -> list[str]:
        admission, is_taken, order = Admission(max_pending=1, max_batches=1, max_body_bytes=1), asyncio.Event(), []

        async def send(message: Message) -> None:
            await is_taken.wait()
            order.append("slow")

        slow, other = (HeavyRequest(admission, {}, receive, send, is_batch=True) for _ in range(2))
        await slow.receive()
        sending = asyncio.create_task(slow.send({"type": "http.response.body", "body": b"", "more_body": True}))
        await other.receive()
        order.append("other")
        is_taken.set()
        await asyncio.sleep(0)
        assert not sending.done()  # it has to wait for its turn again
        other.leave()
        await sending
        slow.leave()
        assert not admission.turns.locked()
        return order

    assert asyncio.run(overtake()) == ["other", "slow"]


def test_the_more_are_refused_the_later_they_may_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse_many() -> list[int]:
        refused = Refused(each_s=10)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 1000.0, raising=False)
        return [await refused.hold(("host", port)) for port in range(120)]

    told = asyncio.run(refuse_many())
    assert (told[0], told[8], told[9], told[119]) == (1, 1, 2, 10)
    assert set(told) == {1, 2, 3, 4, 7, 8, 9, 10}  # uvicorn closes a connection that is idle for 5 s
