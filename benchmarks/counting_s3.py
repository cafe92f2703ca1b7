"""An S3 server that counts: a proxy on 127.0.0.1 in front of Moto's server, for benchmarks and tests.

It is reached by its URL, so that the workers of a cluster are counted as well as the client:

>>> with counting_server() as s3:
...     run(storage_options=s3.storage_options)
...     s3.counts()                          # {"GetObject": Count(n=7, fetched=812_034, sent=0), ...}
...     s3.reset()
"""

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from yarl import URL

PIECE_BYTES = 1 << 20
"""Bytes of an answer that are passed on at a time."""

PASSED_ON_ANEW = {"transfer-encoding", "connection", "keep-alive", "date", "server"}
"""Headers of an answer that are those of one connection."""

SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Request(NamedTuple):
    """One request that was answered.

    Attributes:
        operation: by the name that S3 gives it, ``GetObject``; "fault" for one that was refused on purpose.
        path: ``bucket/key``.
        range: the ``Range`` header, or nothing.
        fetched: bytes of the answer's body, of GET.
        sent: bytes of the request's body.
    """

    operation: str
    path: str
    range: str
    fetched: int
    sent: int


class Count(NamedTuple):
    """Requests of one kind: how many, and bytes of their bodies."""

    n: int
    fetched: int
    sent: int


def operation_of(method: str, path: str, query: Any, headers: Any) -> str:
    """The S3 operation that a request in path style asks for.

    >>> operation_of("GET", "/bucket/key", {}, {})
    'GetObject'
    """
    has_key = bool(path.strip("/").partition("/")[2])
    by_query = {
        ("POST", "uploads"): "CreateMultipartUpload",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("POST", "delete"): "DeleteObjects",
        ("PUT", "uploadId"): "UploadPart",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
        ("GET", "uploadId"): "ListParts",
        ("GET", "uploads"): "ListMultipartUploads",
        ("GET", "location"): "GetBucketLocation",
        ("GET", "list-type"): "ListObjectsV2",
    }
    for (of, name), operation in by_query.items():
        if method == of and name in query:
            return operation
    if method == "PUT" and "x-amz-copy-source" in headers:
        return "CopyObject"
    verb = {"GET": "Get", "HEAD": "Head", "PUT": "Put" if has_key else "Create", "DELETE": "Delete"}.get(method, method)
    if method == "GET" and not has_key:
        return "ListObjects" if path.strip("/") else "ListBuckets"
    return f"{verb}{'Object' if has_key else 'Bucket'}"


@dataclass
class CountingS3:
    """What has been asked of a server since `reset`, and which faults it makes.

    Attributes:
        url: where it is reached.
        requests: all that were answered, in the order of their answers.
        faults: share of requests that are refused, half of them by 503 and half by a connection that is reset.
        delay_s: each answer waits for so long, as it does on the way to a store that is far.
        answers: status and body by operation, of those that the server is not asked for.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    faults: float = 0.0
    delay_s: float = 0.0
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options by which fsspec reaches it."""
        client = {"endpoint_url": self.url, "region_name": "eu-central-1"}
        return {"key": "test-access-key", "secret": "test-secret-0451", "client_kwargs": client}

    def reset(self) -> None:
        """Forget what was counted."""
        self.requests.clear()

    def counts(self, prefix: str = "") -> dict[str, Count]:
        """Requests and bytes by operation, of paths (``bucket/key``) that begin so."""
        found: dict[str, Count] = {}
        for request in list(self.requests):
            if request.path.startswith(prefix):
                before = found.get(request.operation, Count(0, 0, 0))
                now = Count(before.n + 1, before.fetched + request.fetched, before.sent + request.sent)
                found[request.operation] = now
        return dict(sorted(found.items()))

    def total(self, prefix: str = "") -> Count:
        """Requests and bytes of all operations."""
        found = self.counts(prefix).values()
        return Count(sum(c.n for c in found), sum(c.fetched for c in found), sum(c.sent for c in found))

    def refuses(self) -> str:
        """What to do with the next request: nothing, "503" or "reset"."""
        if not self.faults or self._random.random() >= self.faults:
            return ""
        return self._random.choice(("503", "reset"))


@contextlib.contextmanager
def counting(upstream: str) -> Iterator[CountingS3]:
    """Put a counting proxy in front of an S3 server; it runs in a thread of this process and keeps connections open."""
    found = CountingS3()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="counting-s3", daemon=True)
    thread.start()
    stop = asyncio.run_coroutine_threadsafe(_serve(found, upstream), loop).result(30)
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _serve(found: CountingS3, upstream: str) -> Any:
    """Start the proxy; how it is stopped."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=ALL_OURS,
    )

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await _answer(request, found, session, upstream)

    server = web.Server(answer, auto_decompress=False, keepalive_timeout=60, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def stop() -> None:
        await runner.cleanup()
        await session.close()

    return stop


ALL_OURS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""Headers that a client of aiohttp would add."""


async def _answer(
    request: web.BaseRequest, found: CountingS3, session: aiohttp.ClientSession, upstream: str
) -> web.StreamResponse:
    """Ask the server the same, pass its answer on and count it."""
    path, has_body = unquote(request.path), request.body_exists
    operation = operation_of(request.method, path, request.query, request.headers)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = await request.content.read() if has_body else None
    if found.delay_s:
        await asyncio.sleep(found.delay_s)
    sent, wanted = len(body or b""), request.headers.get("Range", "")
    refused = found.refuses()
    if refused:
        found.requests.append(Request("fault", path.lstrip("/"), wanted, 0, sent))
        if refused == "reset" and request.transport is not None:
            request.transport.abort()
        return web.Response(status=503, text="" if request.method == "HEAD" else SLOW_DOWN)
    if operation in found.answers:
        found.requests.append(Request(operation, path.lstrip("/"), wanted, 0, sent))
        status, text = found.answers[operation]
        return web.Response(status=status, text=text, content_type="application/xml")
    headers = {name: value for name, value in request.headers.items() if name.lower() not in ("connection", "expect")}
    if "Content-Length" not in headers:  # it came in chunks, and is whole now
        headers.pop("Transfer-Encoding", None)
    url = URL(upstream + request.raw_path, encoded=True)
    async with session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as theirs:
        kept = [(name, value) for name, value in theirs.headers.items() if name.lower() not in PASSED_ON_ANEW]
        ours = web.StreamResponse(status=theirs.status, reason=theirs.reason)
        ours.headers.extend(kept)
        fetched, counted = 0, False

        def count() -> None:
            nonlocal counted
            counted = True
            n_bytes = fetched if request.method == "GET" else 0
            found.requests.append(Request(operation, path.lstrip("/"), wanted, n_bytes, sent))

        # Counted before the client can see the end: a test looks right after its request.
        try:
            piece = await theirs.content.read(PIECE_BYTES) if request.method != "HEAD" else b""
            if not piece:
                count()
            await ours.prepare(request)
            while piece:
                following = await theirs.content.read(PIECE_BYTES)
                fetched += len(piece)
                if not following:
                    count()
                await ours.write(piece)
                piece = following
            await ours.write_eof()
        finally:
            if not counted:  # the client went away
                count()
        return ours


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Start Moto's server in a process of its own, with nothing in it; its URL."""
    code = (
        "from moto.server import ThreadedMotoServer as S; import sys; s = S('127.0.0.1', 0, verbose=False); "
        "s.start(); print(s.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}  # it tells each request
    process = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        for _ in range(100):
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except urllib.error.HTTPError:
                break  # it refuses, so it answers
            except urllib.error.URLError:
                time.sleep(0.1)
            else:
                break
        yield url
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def counting_server() -> Iterator[CountingS3]:
    """Moto's server in a process of its own, and a counting proxy in front of it."""
    with moto_server() as upstream, counting(upstream) as found:
        yield found
