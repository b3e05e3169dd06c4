"""Many clients in one process, each with a connection that it keeps, asking as fast as it is answered.

python ci_cd/benchmarks/overload_clients.py < job.json
"""

import asyncio
import json
import random
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

LENGTH = re.compile(rb"content-length: (\d+)")
RETRY = re.compile(rb"retry-after: (\d+)")


@dataclass(frozen=True)
class Job:
    """What to do.

    Parameters
    ----------
    port : of the server on this machine
    path, bodies : what to post; the bodies are the lines of a file
    connections : at once
    seconds : for so long, after the first of them, which counts for nothing
    heeds : whether a client that is told when to try again waits so long
    """

    port: int
    path: str
    bodies: str
    connections: int
    seconds: float
    heeds: bool


@dataclass
class Counted:
    """Answers in milliseconds, by what they were; and connections that broke."""

    answered_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    others: int = 0
    broken: int = 0


async def run_client(job: Job, requests: list[bytes], counted: Counted, begin: float, end: float) -> None:
    """Ask until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", job.port, limit=2**22)
    while time.perf_counter() < end:
        started = time.perf_counter()
        try:
            writer.write(random.choice(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(LENGTH.search(head)[1]))  # type: ignore[index]
        except (OSError, asyncio.IncompleteReadError):
            counted.broken += 1
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", job.port, limit=2**22)
            continue
        now = time.perf_counter()
        status = head[9:12]
        if begin < now < end:
            if status in (b"200", b"503"):
                (counted.answered_ms if status == b"200" else counted.refused_ms).append((now - started) * 1000)
            else:
                counted.others += 1
        retry = RETRY.search(head)
        if retry and job.heeds:
            await asyncio.sleep(int(retry[1]))
            if reader.at_eof():  # a server need not keep idle connections so long
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", job.port, limit=2**22)
    writer.close()


async def run_clients(job: Job) -> Counted:
    """Return what all clients counted."""
    head = f"POST {job.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
    bodies = Path(job.bodies).read_bytes().splitlines()
    requests = [head.encode() + b"%d\r\n\r\n" % len(body) + body for body in bodies]
    counted = Counted()
    begin = time.perf_counter() + 1
    clients = (run_client(job, requests, counted, begin, begin + job.seconds) for _ in range(job.connections))
    await asyncio.gather(*clients)
    return counted


if __name__ == "__main__":
    import uvloop

    print(json.dumps(asdict(uvloop.run(run_clients(Job(**json.load(sys.stdin)))))))
