"""How far the run in a folder is, for whoever asks: from its files alone, so that any machine can."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semdedup.compute.exits import RUN_AGAIN
from semdedup.compute.pace import rate_words, time_words
from semdedup.display import Displayable
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.runs.at_work import DONE, FAILED, PROGRESS, RUNNING, STOPPED
from semdedup.runs.owner import WATCH_S, Owner, read_content, read_owner
from semdedup.runs.record import Record
from semdedup.storage.location import Location

STATES = (RUNNING, DONE, FAILED, STOPPED)
BEGINNING = "start"
"""What the step is called of a run that has put nothing on record yet."""

KINDS: Mapping[str, type | tuple[type, ...]] = {
    **{"state": str, "error": (str, type(None)), "part": str, "step": str, "unit": str},
    **{"done": int, "all": (int, type(None)), "quarantined": int},
    **{"rate": (int, float, type(None)), "seconds_left": (int, float, type(None))},
    **{"started": (int, float), "updated": (int, float), "owner": (dict, type(None))},
    **{"steps": list, "summary": list},
}
"""What the file of a run holds."""

NOTHING: Mapping[str, Any] = {
    **{"error": None, "part": "", "step": "", "unit": "", "done": 0, "all": None, "quarantined": 0},
    **{"rate": None, "seconds_left": None, "started": None, "updated": None, "owner": None, "steps": [], "summary": []},
}


@dataclass(frozen=True, repr=False)
class Status(Displayable):
    """How far a run is, or was.

    Attributes:
        place: the folder.
        state: ``running``, ``done``, ``failed`` or ``stopped``. One that was killed is stopped: its process is gone, or
            nothing was heard of it for a minute.
        facts: what there is to tell, as JSON values: ``error``, ``part``, ``step``, ``done``, ``all``, ``unit``,
            ``rate`` (units a second), ``seconds_left`` (of the step), ``quarantined``, ``owner``, ``started`` and
            ``updated`` (seconds since 1970), ``steps`` that are over, and the ``summary`` at the end.
        age_s: seconds since anything was heard of it; None where nobody knows.
    """

    place: str
    state: str
    facts: Mapping[str, Any]
    age_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything that there is to tell, as JSON values."""
        return {"place": self.place, "state": self.state, **self.facts, "age_s": self.age_s}

    def line(self) -> str:
        """How far it is, in a line."""
        facts = self.facts
        counts = f"{facts['done']:,}{'' if facts['all'] is None else '/' + format(facts['all'], ',')} {facts['unit']}"
        rate, left = facts["rate"], facts["seconds_left"]
        now = [counts] if facts["unit"] else []
        if self.state == RUNNING:
            now += [] if rate is None else [rate_words(rate)]
            now += [] if left is None else [f"{time_words(left)} left"]
        step = f"{facts['step']}: {', '.join(now)}" if now else facts["step"]
        return ", ".join(filter(None, [self.state, facts["part"], step * (self.state != DONE)]))

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        facts = self.facts
        rows = [("folder", self.place), ("state", self.line()), ("why", facts["error"] or "")]
        if facts["quarantined"]:
            rows.append(("in quarantine so far", f"{facts['quarantined']:,}"))
        if facts["started"] is not None:
            at = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(facts["started"]))
            until = time.time() if self.state == RUNNING else facts["updated"]
            rows.append(("began", at))
            rows.append(("took" if self.state != RUNNING else "at work for", time_words(until - facts["started"])))
        if self.state != DONE and facts["owner"]:
            rows.append(("process", f"{facts['owner'].get('pid')} on {facts['owner'].get('host')}"))
        if self.state != DONE and self.age_s is not None:
            rows.append(("last sign of life", f"{time_words(self.age_s)} ago"))
        rows += [(name, value) for name, value in facts["summary"]]
        return [(name, value) for name, value in rows if value]


def read_status(path: str, storage_options: Mapping[str, Any] | None = None) -> Status:
    """How far the run that writes to a folder is, or how it ended. Cost: two small files are read.

    Args:
        path: the output path of a run, local or in a store.
        storage_options: for fsspec.

    Raises:
        ParameterError: no such path.
        InputError: no run was there.
    """
    root = Location.of(path, storage_options)
    found, owner = _read(root), read_owner(root)
    if owner is not None and (found is None or (found["owner"] or {}).get("token") != owner.token):
        return _of_owner(root, owner)  # it has not written yet, or the file is of the run before
    if found is not None:
        return _of_file(root, found)
    if not root.exists():
        raise ParameterError(f"no such path: {root}")
    if (status := _of_record(root)) is not None:
        return status
    above = root.parent
    hint = f" {above} has one, of which this may be a part: semdedup status {above}" if _read(above) else ""
    raise InputError(f"no run of semdedup is, or was, at work in {root}.{hint}")


def _read(root: Location) -> dict[str, Any] | None:
    """What the file says; None where it is not there, or not ours."""
    content = read_content(root / PROGRESS)
    try:
        found = json.loads(content or b"")
        sound = all(isinstance(found[name], kind) for name, kind in KINDS.items()) and found["state"] in STATES
        summary = [(str(name), str(value)) for name, value in found["summary"]]
    except (ValueError, LookupError, TypeError):
        return None
    return {**{name: found[name] for name in KINDS}, "summary": summary} if sound else None


def _of_file(root: Location, found: Mapping[str, Any]) -> Status:
    age = max(0.0, time.time() - found["updated"])
    facts, state = {name: value for name, value in found.items() if name != "state"}, found["state"]
    owner = Owner.from_bytes(json.dumps(found["owner"]).encode())
    if state == RUNNING and ((owner is not None and owner.is_gone) or age > WATCH_S):
        state = STOPPED
        facts["error"] = f"{_why_stopped(owner, age)}. {RUN_AGAIN}"
    return Status(str(root), state, facts, age)


def _of_owner(root: Location, owner: Owner) -> Status:
    age = max(0.0, time.time() - owner.heartbeat)
    facts = {**NOTHING, "step": BEGINNING, "owner": json.loads(owner.to_bytes())}
    if owner.is_gone or age > WATCH_S:
        return Status(str(root), STOPPED, {**facts, "error": f"{_why_stopped(owner, age)}. {RUN_AGAIN}"}, age)
    return Status(str(root), RUNNING, facts, age)


def _why_stopped(owner: Owner | None, age: float) -> str:
    if owner is not None and owner.is_gone:
        return f"its process {owner.pid} is gone: it was killed"
    return f"nothing was heard of it for {time_words(age)}: it was killed, or is cut off from the folder"


def _of_record(root: Location) -> Status | None:
    """Of a run that wrote no such file: whether all that it began is complete."""
    try:
        steps = Record(root).steps.values()
    except OutputConflictError:
        return None
    if not steps:
        return None
    is_done = all(step["status"] == "committed" for step in steps)
    return Status(str(root), DONE if is_done else STOPPED, {**NOTHING, "error": None if is_done else RUN_AGAIN})
