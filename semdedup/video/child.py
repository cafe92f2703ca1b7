"""A process in which decoders may crash or hang: it costs the video at hand and nothing else.

Dask's workers are daemons, which may not have `multiprocessing` children, and a worker that dies takes its neighbours'
tasks along. So this is a plain subprocess with pipes: it is sent pickles, and answers `messages`, for a decoder that a
hostile video has taken over must not get to run code in its parent. Its memory is limited. It is kept for the next
video, and ends when its parent does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import queue
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import msgspec
import numpy as np

from semdedup.errors import SemdedupError
from semdedup.video.memory import memory_limit, peak_bytes, ran_out, wait
from semdedup.video.messages import End, Failed, Heartbeat, Item, Message, Needed, decoder_of, encoded
from semdedup.video.options import Limits

A = TypeVar("A")
T = TypeVar("T")

HEADER = struct.Struct("<Q")
START = "from semdedup.video.child import serve; serve()"
SECONDS_TO_START = 60.0
SECONDS_TO_END = 5.0
TAIL_BYTES = 4096

ENVIRONMENT = frozenset(
    {
        *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
        *("PYTHONHOME", "PYTHONUTF8", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MPS_PIPE_DIRECTORY"),
    }
)
"""The variables that the process gets. The others may hold credentials, and it reads hostile files. By whole names:
``HOMEBREW_GITHUB_API_TOKEN``, ``LANGSMITH_API_KEY`` and ``NVIDIA_API_KEY`` begin like harmless ones."""


class ChildDied(Exception):
    """The process ended in the middle of a call, or answered what it cannot mean; the message tells how."""


class ChildOutOfMemory(ChildDied):
    """The function needed more memory than it may take."""

    def __init__(self, max_memory: int, detail: str) -> None:
        super().__init__(f"more memory is needed than the limit of {max_memory / 2**30:.3g} GiB: {detail}")


class ChildTimeout(Exception):
    """The process gave no sign of life for too long, and was killed."""


class Child:
    """A process that runs generator functions, one at a time."""

    def __init__(self) -> None:
        kept = {name: os.environ[name] for name in ENVIRONMENT & os.environ.keys()}
        self._max_memory = Limits.max_memory
        self._inherited = peak_bytes()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Videos are decoded side by side, each by one thread; idle ones of NumPy would take memory.
            env={**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", "SVT_LOG": "1"},
        )
        assert self._process.stderr is not None
        self._said = _Tail(self._process.stderr)

    def call(
        self,
        function: Callable[[A], Iterator[T | None]],
        argument: A,
        timeout_s: float,
        max_memory: int = Limits.max_memory,
        provide: Callable[[int], tuple[int, int]] | None = None,
    ) -> Iterator[T]:
        """Yield what ``function(argument)`` yields there. A None that it yields is a sign of life and is not passed on.

        Args:
            function: its annotation says what it yields, see `messages`.
            argument: any object that can be pickled.
            timeout_s: how long it may be silent.
            max_memory: bytes that it may take.
            provide: called with the position of a byte of its file that it needs; gives the stretch around it that
                is there then: its first position, and the one after its last. What it raises ends the call.

        Raises:
            ChildOutOfMemory: it needed more.
            ChildDied: the process crashed, or what came is no answer of this function.
            ChildTimeout: nothing came for `timeout_s` seconds.
            OSError: the function raised one: a full disk, say.
            SemdedupError: the function raised something else, which is a defect; with its traceback.
        """
        decoder = decoder_of(function)
        finished = False
        try:
            self._max_memory = max_memory
            self._send((function, argument, max_memory))
            wait_s = max(timeout_s, SECONDS_TO_START)
            while True:
                message = self._receive(decoder, wait_s)
                wait_s = timeout_s
                if isinstance(message, Item):
                    yield message.value
                elif isinstance(message, Needed):
                    if provide is None:
                        raise ChildDied("the decoding process asked for more of a file that it has as a whole")
                    self._send(provide(message.position))
                elif isinstance(message, Failed):
                    if message.kind == "memory":
                        raise ChildOutOfMemory(max_memory, message.text)
                    finished = True
                    if message.kind == "system":
                        raise OSError(message.errno, message.text)
                    raise SemdedupError(f"{function.__name__} failed:\n{message.text}")
                elif isinstance(message, End):
                    finished = True
                    return
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
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _send(self, call: tuple[Any, ...]) -> None:
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL))
        except BrokenPipeError as error:
            raise self._death() from error

    def _receive(self, decoder: msgspec.msgpack.Decoder[Message], timeout_s: float) -> Message:
        deadline = time.monotonic() + timeout_s
        (n_bytes,) = HEADER.unpack(self._read(HEADER.size, timeout_s, deadline))
        if n_bytes > self._max_memory // 2:  # there it was beside what it was made of
            raise ChildDied(f"the decoding process announced an answer of {n_bytes:,} bytes")
        content = self._read(n_bytes, timeout_s, deadline)
        try:
            return decoder.decode(content)
        except Exception as error:  # whatever a process that was taken over may bring about
            raise ChildDied(f"the decoding process gave an answer that cannot be read: {error}") from error

    def _read(self, n_bytes: int, timeout_s: float, deadline: float) -> memoryview:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        content = np.empty(n_bytes, np.uint8).data  # a bytearray would be filled with zeros first
        received = 0
        with selectors.DefaultSelector() as selector:  # select() itself takes no file beyond the 1,024th
            selector.register(file, selectors.EVENT_READ)
            while received < n_bytes:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ChildTimeout(f"no progress for {timeout_s:g} s")
                n_more = os.readv(file, [content[received:]])
                if not n_more:
                    raise self._death()
                received += n_more
        return content

    def _death(self) -> ChildDied:
        killer = threading.Timer(SECONDS_TO_END, self._process.kill)  # it may have closed its pipes and live on
        killer.start()
        peak = wait(self._process, self._inherited)
        killer.cancel()
        status = self._process.returncode
        if status < 0:
            known = {number.value: number.name for number in signal.Signals}
            text = f"the decoding process was ended by {known.get(-status, f'signal {-status}')}"
        else:
            said = self._said.last_line()
            text = f"the decoding process ended with status {status}" + (f": {said[:300]}" if said else "")
        if ran_out(status, peak, self._max_memory):
            return ChildOutOfMemory(self._max_memory, text)
        return ChildDied(text)


class _Tail:
    """The end of what a process says, which is read as long as it speaks: it may say much in its life."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._said = b""
        self._thread = threading.Thread(target=self._listen, args=(pipe,), name="semdedup-child", daemon=True)
        self._thread.start()

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            while said := os.read(pipe.fileno(), TAIL_BYTES):
                self._said = (self._said + said)[-TAIL_BYTES:]

    def last_line(self) -> str:
        """The last line that a process has said, once it has ended."""
        self._thread.join(SECONDS_TO_END)
        return self._said.decode(errors="replace").strip().rpartition("\n")[2]


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


def _write(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(HEADER.pack(len(content)))
    pipe.write(content)
    pipe.flush()


class _Parent:
    """In the process: the way to its parent."""

    def __init__(self) -> None:
        self.replies = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what a library prints must not get between the messages
        self.calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self.calls,), daemon=True).start()

    def tell(self, message: Message) -> None:
        _write(self.replies, encoded(message))


_parent: _Parent | None = None


def stretch_around(position: int) -> tuple[int, int]:
    """In the process: wait until the byte of the file at a position is there; the stretch of which that is true."""
    assert _parent is not None, "only what runs in such a process may ask"
    _parent.tell(Needed(position))
    start, stop = pickle.loads(_parent.calls.get())
    return start, stop


def serve() -> None:
    """What the process does: run what it is asked to, until its parent is gone."""
    global _parent
    _parent = _Parent()
    while True:
        call = _parent.calls.get()
        try:
            function, argument, max_memory = pickle.loads(call)  # here: what it imports may fail
            with memory_limit(max_memory):
                for item in function(argument):
                    _parent.tell(Heartbeat() if item is None else Item(item))
            answer: Message = End()
        except Exception as error:  # it is reported to the parent, whatever it is
            answer = _failure(error)
        _parent.tell(answer)


def _failure(error: Exception) -> Failed:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return Failed("memory", _text(str(error) or "an allocation failed"))
    if isinstance(error, OSError):
        return Failed("system", _text(error.strerror or str(error)), error.errno)
    return Failed("defect", _text(traceback.format_exc()))


def _text(said: str) -> str:
    """Text that can be sent: names of files may hold what is no Unicode."""
    return said.encode(errors="backslashreplace").decode()


def _listen(calls: queue.SimpleQueue[bytes]) -> None:
    """Take calls and answers. The pipe ends when the parent does; work in progress is then for nobody."""
    pipe = os.fdopen(os.dup(0), "rb")
    while True:
        header = pipe.read(HEADER.size)
        if len(header) < HEADER.size:
            os._exit(0)
        calls.put(pipe.read(HEADER.unpack(header)[0]))
