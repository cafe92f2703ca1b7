"""Who is at work in a folder: one run at a time, known by ``_owner.json``.

The file is created only if it is absent, and its heartbeat is renewed every ten seconds. An owner is dead when its
process is gone from this host, or when its heartbeat did not change while somebody watched for a minute. A run that was
suspended and overtaken meanwhile finds another token in the file, and stops.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import psutil

from semdedup.errors import OutputConflictError, StorageError
from semdedup.storage.exclusive import Claim, claim, remove_claim
from semdedup.storage.location import Location
from semdedup.storage.processes import boot_id, process_is_gone

FILE_NAME = "_owner.json"
HEARTBEAT_S = 10.0
WATCH_S = 60.0
POLL_S = 1.0


@dataclass(frozen=True)
class Owner:
    """What ``_owner.json`` says.

    Attributes:
        token: of the run, 8 hexadecimal digits; its scratch folders carry it.
        host: name of the machine.
        boot_id: of the machine's running system, and the process namespace: process ids mean nothing elsewhere.
        pid: process.
        process_start: when it started, seconds since 1970; another process may get the same id later.
        since: when the run began, as text.
        heartbeat: seconds since 1970, renewed every `HEARTBEAT_S`.
    """

    token: str
    host: str
    boot_id: str
    pid: int
    process_start: float
    since: str
    heartbeat: float

    @classmethod
    def new(cls) -> Owner:
        """A run of this process."""
        now = time.time()
        since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
        start = psutil.Process().create_time()
        return cls(uuid.uuid4().hex[:8], socket.gethostname(), boot_id(), os.getpid(), start, since, now)

    @classmethod
    def from_bytes(cls, content: bytes) -> Owner | None:
        """The owner that a file names; None where it cannot be read."""
        try:
            value = json.loads(content)
            return cls(**{name: kind(value[name]) for name, kind in _FIELDS.items()})
        except (ValueError, KeyError, TypeError):
            return None

    def to_bytes(self) -> bytes:
        """The content of the file, of one length whatever the heartbeat: it is renewed in place."""
        text = json.dumps({**asdict(self), "heartbeat": round(self.heartbeat, 3)}, indent=1)
        return text.ljust(512).encode() + b"\n"

    @property
    def is_here(self) -> bool:
        """Whether its process ids are those of this system."""
        return (self.host, self.boot_id) == (socket.gethostname(), boot_id())

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended: by its id on this system, or by a restart of this host."""
        if self.is_here:
            return process_is_gone(self.pid, self.process_start)
        restarted = self.host == socket.gethostname() and self.boot_id.split("/")[0] != boot_id().split("/")[0]
        return restarted and self.boot_id.split("/")[1:] == boot_id().split("/")[1:]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


_FIELDS: Mapping[str, type] = {
    **{"token": str, "host": str, "boot_id": str, "pid": int},
    **{"process_start": float, "since": str, "heartbeat": float},
}


class Ownership:
    """The right of one run to write to a folder, from `owned`; lost where another run takes over."""

    def __init__(self, root: Location, owner: Owner, mine: Claim, made: list[Location]) -> None:
        self.root, self.owner, self.made = root, owner, made
        self._claim = mine
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="semdedup-heartbeat", daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """The token of the run."""
        return self.owner.token

    @property
    def is_lost(self) -> bool:
        """Whether the heartbeat has found that the file is not this run's any more."""
        return self._lost.is_set()

    def check(self) -> None:
        """Read the file again. Raises `OutputConflictError` where another run has taken over."""
        check_owner(self.root, self.token)

    def check_heartbeat(self) -> None:
        """`check`, but only once the folder `is_lost`: costs nothing."""
        if self.is_lost:
            self.check()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            self.owner = replace(self.owner, heartbeat=time.time())
            with contextlib.suppress(StorageError):
                if not self._claim.renew(self.owner.to_bytes()):
                    self._lost.set()
                    return

    def release(self) -> None:
        """Stop the heartbeat and delete the file if it is still this run's, and folders that it was made in for it."""
        self._stop.set()
        self._thread.join()
        self._claim.close()
        with contextlib.suppress(StorageError):
            found = read_owner(self.root)
            if found is not None and found.token == self.token:
                (self.root / FILE_NAME).remove()
                for folder in self.made:
                    folder.remove_if_empty()


_held: contextvars.ContextVar[Mapping[str, Ownership]] = contextvars.ContextVar("semdedup_owned")
_living: set[str] = set()
"""Tokens of the runs of this process."""


@contextlib.contextmanager
def owned(root: Location, *, take_over: bool = False, say: Callable[[str], None] = print) -> Iterator[Ownership]:
    """Own a folder for the time of the block. Inside it the same call gives the same ownership.

    Args:
        root: the folder, made if it is absent.
        take_over: do not ask whether an owner that is there is alive.
        say: takes a line where the owner that is there has to be watched.

    Raises:
        OutputConflictError: another run is at work there; with its host, its process and since when.
    """
    held = _held.get({}).get(root.url)
    if held is not None:
        yield held
        return
    ownership = _acquire(root, take_over, say)
    _living.add(ownership.token)
    reset = _held.set({**_held.get({}), root.url: ownership})
    try:
        yield ownership
    finally:
        _held.reset(reset)
        ownership.release()
        _living.discard(ownership.token)


def read_content(place: Location) -> bytes | None:
    """What is in a file that may go at any moment; None where it is not there."""
    try:
        return place.read_bytes()
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def read_owner(root: Location) -> Owner | None:
    """Who is at work in a folder; None where nobody is, or the file cannot be understood."""
    content = read_content(root / FILE_NAME)
    return None if content is None else Owner.from_bytes(content)


def check_owner(root: Location, token: str) -> None:
    """Make sure that a folder still belongs to a run; called before anything is put in place there.

    Raises:
        OutputConflictError: another run has taken over.
    """
    found = read_owner(root)
    if found is None or found.token != token:
        by = "nobody owns the folder any more" if found is None else f"another run has taken over: {found}"
        raise OutputConflictError(
            f"{root}: {by}. This run was suspended or cut off for over {WATCH_S:g} s, or its {FILE_NAME} was deleted; "
            "it stops here and leaves what the other run does as it is. Run the same command again when that has ended."
        )


def _acquire(root: Location, take_over: bool, say: Callable[[str], None]) -> Ownership:
    place, owner = root / FILE_NAME, Owner.new()
    made = root.absent_folders()
    while True:
        mine = claim(place, owner.to_bytes())
        if mine is not None:
            return Ownership(root, owner, mine, made)
        content = read_content(place)
        if content is None:
            continue  # it was released in between
        found = Owner.from_bytes(content)
        if not take_over and not _is_dead(place, content, found, say):
            raise OutputConflictError(
                f"another run is at work in {root}: {found}. Wait until it ends, or choose another output path. If it "
                "is no run of yours any more, --take-over (take_over=True) goes on in its place."
            )
        remove_claim(place, content)


def _is_dead(place: Location, content: bytes, found: Owner | None, say: Callable[[str], None]) -> bool:
    if found is not None:
        if found.is_gone:
            return True
        if found.is_here and found.pid == os.getpid():
            return found.token not in _living
    say(f"{place} names {found or 'an owner that cannot be read'}; watching for {WATCH_S:g} s whether it is alive")
    deadline = time.monotonic() + WATCH_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = read_content(place)
        if now != content:
            return now is None  # it ended meanwhile; otherwise it, or another newcomer, is alive
        if found is not None and found.is_gone:
            return True
    return True
