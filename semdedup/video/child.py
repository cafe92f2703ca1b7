"""A process in which decoders may crash or hang: it costs the video at hand and nothing else.

Dask's workers are daemons, which may not have `multiprocessing` children, and a worker that dies takes its neighbours'
tasks along. So this is a plain subprocess that speaks pickles over its pipes. It is kept for the next video, and ends
when its parent does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any

from semdedup.errors import SemdedupError

HEADER = struct.Struct("<Q")
READ_BYTES = 1 << 20
START = "from semdedup.video.child import serve; serve()"
SECONDS_TO_START = 60.0

ENVIRONMENT = ("PATH", "HOME", "TMP", "TEMP", "LANG", "LC_", "LD_", "DYLD_", "PYTHON", "CUDA_", "NVIDIA_", "OMP_")
"""Beginnings of the variables that the process gets. The others may hold credentials, and it reads hostile files."""


class ChildDied(Exception):
    """The process ended in the middle of a call; the message tells how."""


class ChildTimeout(Exception):
    """The process gave no sign of life for too long, and was killed."""


class Child:
    """A process that runs generator functions, one at a time."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        kept = {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT)}
        environment = {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SVT_LOG": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        self._received = bytearray()

    def call(self, function: Callable[[Any], Iterator[Any]], argument: Any, timeout_s: float) -> Iterator[Any]:
        """Yield what ``function(argument)`` yields there. A None that it yields is a sign of life and is not passed on.

        Raises:
            ChildDied: the process crashed.
            ChildTimeout: nothing came for `timeout_s` seconds.
            OSError: the function raised one: a full disk, say.
            SemdedupError: the function raised something else, which is a defect; with its traceback.
        """
        finished = False
        try:
            self._send((function, argument))
            wait_s = max(timeout_s, SECONDS_TO_START)
            while True:
                kind, content = self._receive(wait_s)
                wait_s = timeout_s
                if kind == "item" and content is not None:
                    yield content
                elif kind == "end":
                    finished = True
                    return
                elif kind == "oserror":
                    finished = True
                    raise OSError(*content)
                elif kind == "error":
                    finished = True
                    raise SemdedupError(f"{function.__name__} failed:\n{content}")
        finally:
            if not finished:
                self.kill()

    @property
    def alive(self) -> bool:
        """Whether it can take another call."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, message)
        except BrokenPipeError as error:
            raise ChildDied(self._death()) from error

    def _receive(self, timeout_s: float) -> Any:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while True:
            if len(self._received) >= HEADER.size:
                (n_bytes,) = HEADER.unpack_from(self._received)
                if len(self._received) >= HEADER.size + n_bytes:
                    message = pickle.loads(bytes(self._received[HEADER.size : HEADER.size + n_bytes]))
                    del self._received[: HEADER.size + n_bytes]
                    return message
            ready, _, _ = select.select([file], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ChildTimeout(f"no progress for {timeout_s:g} s")
            received = os.read(file, READ_BYTES)
            if not received:
                raise ChildDied(self._death())
            self._received += received

    def _death(self) -> str:
        code = self._process.wait()
        if code < 0:
            known = {number.value: number.name for number in signal.Signals}
            return f"the decoding process was ended by {known.get(-code, f'signal {-code}')}"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the decoding process ended with status {code}" + (f": {said[-1][:300]}" if said else "")


_idle: list[Child] = []
_lock = threading.Lock()


@contextlib.contextmanager
def borrowed_child() -> Iterator[Child]:
    """A process from the pool of this worker, or a new one. It goes back if it is still good."""
    with _lock:
        child = _idle.pop() if _idle else None
    if child is None or not child.alive:
        child = Child()
    try:
        yield child
    finally:
        if child.alive:
            with _lock:
                _idle.append(child)


def end_children() -> None:
    """End the processes of the pool of this worker. For the end of a run: what a caller's workers hold is theirs."""
    with _lock:
        while _idle:
            _idle.pop().kill()


def _write(pipe: IO[bytes], message: Any) -> None:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(HEADER.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def serve() -> None:
    """What the process does: run what it is asked to, until its parent is gone."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the messages
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    while True:
        call = calls.get()
        try:
            function, argument = pickle.loads(call)  # here: what it imports may fail
            for item in function(argument):
                _write(replies, ("item", item))
            _write(replies, ("end", None))
        except OSError as error:
            _write(replies, ("oserror", (error.errno, error.strerror or str(error))))
        except Exception:  # it is reported to the parent, whatever it is
            _write(replies, ("error", traceback.format_exc()))


def _listen(calls: queue.SimpleQueue[bytes]) -> None:
    """Take calls. The pipe ends when the parent does, however it ends; work in progress is then for nobody."""
    pipe = os.fdopen(os.dup(0), "rb")
    while True:
        header = pipe.read(HEADER.size)
        if len(header) < HEADER.size:
            os._exit(0)
        calls.put(pipe.read(HEADER.unpack(header)[0]))
