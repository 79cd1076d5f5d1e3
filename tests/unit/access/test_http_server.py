"""A client that holds its connection open is disconnected, and one that waits is not. systemd hears that it turns."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kvworker.access import http_server
from kvworker.access.http_server import make_server
from tests.support.health import fake_systemd

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LARGE = 20_000_000
#: For a busy machine.
PATIENT_SECONDS = 60

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def answer(request: Request) -> Response:
    """Answer after the body and a while."""
    await request.body()
    if request.url.path == "/large":
        return PlainTextResponse("x" * LARGE)
    await asyncio.sleep(http_server.HEAD_SECONDS + 1)
    return PlainTextResponse("done")


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("HEAD_SECONDS", "BODY_SECONDS", "READ_SECONDS")):
        monkeypatch.setattr(http_server, name, 3 + number / 10)


def run(scenario: Callable[[Connect], Awaitable[None]]) -> None:
    """Run a scenario with clients of a server."""

    async def serve() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = make_server(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])]))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with asyncio.timeout(PATIENT_SECONDS):
                await scenario(lambda: asyncio.open_connection(*listener.getsockname()))
            server.should_exit = True
            await serving

    asyncio.run(serve())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Read until the server ends the connection."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost:", HEAD + b"a"], ids=["none", "head", "body"])
def test_a_request_that_does_not_arrive_ends_its_connection(begun: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(begun)
        assert await rest(reader) == b""
        writer.close()

    run(scenario)


def test_single_bytes_extend_no_deadline() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nx: ")
        reading = asyncio.create_task(rest(reader))
        while not reading.done():
            writer.write(b"x")
            await asyncio.sleep(0.1)
        assert reading.result() == b""
        writer.close()

    run(scenario)


def test_an_answer_that_is_not_read_ends_its_connection() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET.replace(b" / ", b" /large "))
        await asyncio.sleep(http_server.READ_SECONDS + 2)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await rest(reader)) < LARGE
        writer.close()

    run(scenario)


@pytest.mark.parametrize("request_bytes", [GET, HEAD + b"ab", UPGRADE], ids=["get", "post", "upgrade"])
def test_a_client_that_waits_for_its_answer_gets_it_twice(request_bytes: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(request_bytes)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(4) == b"done"
        writer.close()

    run(scenario)


def test_systemd_hears_that_the_server_is_ready_and_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_systemd(tmp_path, 30) as systemd:
        for name, value in systemd.environ.items():
            monkeypatch.setenv(name, value)

        async def wait(_connect: Connect) -> None:
            while systemd.reports().count("WATCHDOG=1") < 2:
                await asyncio.sleep(0.1)

        run(wait)
        assert systemd.reports()[0] == "READY=1"
