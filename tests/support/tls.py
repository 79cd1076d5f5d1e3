"""TLS proxies for the packaged servers, which are built without TLS, and keys that sign messages."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

#: The eight bytes with which a PostgreSQL client asks for TLS: their length, and a code.
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(frozen=True)
class Authority:
    """A certificate authority for a test: its certificate file, and the TLS context of a server on 127.0.0.1."""

    file: Path
    context: ssl.SSLContext


def make_authority(directory: Path, name: str) -> Authority:
    """Make an authority that signs a certificate for 127.0.0.1, but not for localhost."""
    authority = trustme.CA(organization_name=name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = directory / f"{name}.pem"
    authority.cert_pem.write_to_path(str(file))
    return Authority(file, context)


class TlsProxy:
    """Terminates TLS on a loopback port and forwards everything to a server, in its own thread."""

    def __init__(self, context: ssl.SSLContext, connect: Connect, *, client_asks_first: bool = False) -> None:
        self.port = 0
        self._context = context
        self._connect = connect
        self._client_asks_first = client_asks_first
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._stop = asyncio.Event()

    @property
    def address(self) -> str:
        """The host and port that the proxy listens on."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start to listen."""
        self._thread.start()
        assert self._ready.wait(10)

    def cut(self) -> int:
        """Cut every connection and return their number. The proxy still accepts new ones."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def stop(self) -> None:
        """Cut every connection and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        context = None if self._client_asks_first else self._context
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        await self._cut()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _cut(self) -> int:
        found = list(self._open)
        for writer in found:
            writer.transport.abort()
        return len(found) // 2

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with self._tracked(writer):
                if self._client_asks_first:
                    await self._accept_tls(reader, writer)
                server_reader, server_writer = await self._connect()
                async with self._tracked(server_writer):
                    await asyncio.gather(_forward(reader, server_writer), _forward(server_reader, writer))

    async def _accept_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST
        writer.write(b"S")
        await writer.start_tls(self._context)

    @asynccontextmanager
    async def _tracked(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    # If one direction ends, end the other one too.
    writer.transport.abort()


@contextmanager
def tls_before_port(context: ssl.SSLContext, port: int) -> Iterator[TlsProxy]:
    """Run a proxy in front of a server on a loopback port."""
    yield from _running(TlsProxy(context, lambda: asyncio.open_connection("127.0.0.1", port)))


@contextmanager
def tls_before_postgres(context: ssl.SSLContext, socket_directory: str) -> Iterator[TlsProxy]:
    """Run a proxy in front of a PostgreSQL server on a Unix socket. Its clients ask for TLS before the handshake."""
    path = f"{socket_directory}/.s.PGSQL.5432"
    yield from _running(TlsProxy(context, lambda: asyncio.open_unix_connection(path), client_asks_first=True))


def _running(proxy: TlsProxy) -> Iterator[TlsProxy]:
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@dataclass(frozen=True)
class Signer:
    """The files of a signing key and of its certificate."""

    key: Path
    certificate: Path


def make_signer(directory: Path, name: str) -> Signer:
    """Make a key and its certificate. They are RSA, the only kind that Celery supports."""
    authority = trustme.CA(organization_name=name, key_type=trustme.KeyType.RSA)
    issued = authority.issue_cert(f"{name}.invalid", key_type=trustme.KeyType.RSA)
    signer = Signer(directory / f"{name}.key", directory / f"{name}.pem")
    issued.private_key_pem.write_to_path(str(signer.key))
    issued.cert_chain_pems[0].write_to_path(str(signer.certificate))
    return signer
