"""What the tests of `semdedup.runs` share: records of steps that were begun or committed by hand, and a real run."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import distributed

from semdedup.compute.progress import Reporter
from semdedup.compute.session import Session, check_cluster
from semdedup.runs.identity import fingerprint
from semdedup.runs.owner import owned
from semdedup.runs.record import SCRATCH, Record
from semdedup.runs.run import Run, begin
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.written import Written, collecting

FILES = [FileInfo("a", 10, "1"), FileInfo("b", 20, "1")]
SOURCE = fingerprint(FILES)
ANYTHING = dict.fromkeys(("split", "kmeans", "pairwise", "identify", "shard"), re.compile(".*"))
"""Any name is one that the steps may have written: for tests of something else."""


def write(root: Location, *names: str) -> dict[str, Written]:
    """Write a small file of each name; what a record says of them."""
    with collecting(root.url) as written:
        for name in names:
            (root / name).write_bytes(b"x")
    return written


def names_below(root: Location) -> list[str]:
    return [file.url[len(root.url) + 1 :] for file in root.files()]


def put_begun(
    root: Location, step: str, parameters: Mapping[str, Any] | None = None, token: str = "00000000", **more: Any
) -> Record:
    """A record in which a step was begun."""
    record = Record(root)
    name = f"{SCRATCH}/{step}-{token}"
    record.update(step, status="begun", parameters=dict(parameters or {}), input=SOURCE, temporary=[name], **more)
    return record


def put_committed(
    root: Location,
    step: str,
    *names: str,
    facts: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Record:
    """A record in which a step was committed, with files of these names."""
    written = write(root, *names)
    record = Record(root)
    record.update(
        step,
        status="committed",
        parameters=dict(parameters or {}),
        input=SOURCE,
        files=written,
        facts=dict(facts or {}),
        temporary=None,
    )
    return record


def session_on(client: distributed.Client) -> Session:
    return check_cluster(client, "cpu", Reporter(False))


@contextlib.contextmanager
def running(
    root: Location,
    session: Session,
    step: str = "kmeans",
    parameters: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    written: Mapping[str, re.Pattern[str]] = ANYTHING,
) -> Iterator[Run | None]:
    """A run that owns its folder, as `semdedup.runs.step.run_step` begins it."""
    with owned(root) as ownership:
        record = Record(root, ownership.token)
        yield begin(record, step, dict(parameters or {}), dict(source or SOURCE), ownership, session, written)
