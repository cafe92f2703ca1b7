"""The overlaps of a run: the first search over all videos, and one each time that videos came since."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import distributed
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.dedup.base.new_rows import LeftOut
from semdedup.errors import OutputConflictError
from semdedup.overlaps.folders import DROP, overlaps_below
from semdedup.overlaps.names import STEP, WRITTEN
from semdedup.overlaps.options import OverlapsOptions
from semdedup.overlaps.search import OverlapSearch
from semdedup.overlaps.source import find_source
from semdedup.runs.owner import owned
from semdedup.runs.places import OVERLAPS
from semdedup.runs.record import Record
from semdedup.settings.choices import DropWhen
from semdedup.shards.options import DROP_WHEN
from semdedup.shards.overlaps import tables_in
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table
from semdedup.updates import ANEW

NAMES = {STEP: WRITTEN[STEP], DROP: WRITTEN[STEP]}
"""What the names of the files of each step look like; the note of `drop_when` has none."""


@dataclass(frozen=True)
class RunOverlaps:
    """The overlaps of a run.

    Attributes:
        drop_when: whether a clip goes by ``either`` of overlap and near-duplicates, or by ``both``.
        duplicates: how many clips go by overlap, of each search by the name of its folder.
        waiting: how many of them one of several embedders has failed on: they are in quarantine first of all.
        seconds: what this run took for them.
    """

    drop_when: DropWhen
    duplicates: Mapping[str, int]
    seconds: float = 0.0
    waiting: int = 0

    @property
    def total(self) -> int:
        """How many clips go by overlap."""
        return sum(self.duplicates.values())


class Searches:
    """The searches below the root of a run, ``overlaps``, ``overlaps-0002``, …, each with those before it for its base.

    Args:
        root: of the run.
        clips: output of its split.
        given: parameters of the search, as the user gave them; what is not given is as in the first one.
        drop_when: likewise.
        shared: ``clear_output`` and others that all workflows take.
    """

    def __init__(
        self,
        root: Location,
        clips: Location,
        given: Mapping[str, Any],
        drop_when: DropWhen | None,
        shared: Mapping[str, Any],
    ) -> None:
        self.root, self.clips, self._shared = root, clips, shared
        self._given, self._drop_when = dict(given), drop_when
        OverlapsOptions.named(self._given, "overlaps")

    @property
    def folders(self) -> list[Location]:
        """Their folders, the oldest first; a last one may not be complete."""
        return OVERLAPS.below(self.root)

    @property
    def drop_when(self) -> DropWhen:
        """Which clips go: as it was given, or is on record, or the default."""
        if self._drop_when is not None:
            return self._drop_when
        entry = {} if self._shared["clear_output"] else Record(self._folder(1)).steps.get(DROP, {})
        when: DropWhen = entry.get("parameters", {}).get("drop_when", DROP_WHEN.default)
        return when

    def are_wanted(self, n_dedups: int) -> bool:
        """Whether a run looks for overlaps: not where one has compared all clips without, of which some are shipped.

        Raises:
            OutputConflictError: so it is, but something was said of overlaps.
        """
        if self._shared["clear_output"] or not n_dedups or self.folders or OVERLAPS.beyond(self.root):
            return True
        if self._given or self._drop_when is not None:
            raise OutputConflictError(
                f"{self.root} holds a dedup that was made without overlaps, so that none are looked for now. Leave out "
                f"drop_when and overlaps, or {ANEW}."
            )
        return False

    def check(self) -> None:
        """Refuse other parameters than those on record, before any work. Raises `OutputConflictError`."""
        if self._shared["clear_output"]:
            return
        if beyond := OVERLAPS.beyond(self.root):
            raise OutputConflictError(
                f"{self._folder(len(self.folders) + 1)} is not there, and {beyond[0]} was made after it. Put it back, "
                f"or {ANEW}."
            )
        for number, folder in enumerate(self.folders, start=1):
            Record(folder).check(STEP, self._parameters(number))
        Record(self._folder(1)).check(DROP, {"drop_when": self.drop_when})

    def run(self, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter) -> RunOverlaps:
        """Complete what was begun, then compare videos that are new with all before, in a search of their own.

        Raises:
            InputError: there are no tracks.
            OutputConflictError: files of an earlier search are missing, and cannot be made again as they were.
        """
        started = time.monotonic()
        find_source(self.clips)
        if self._shared["clear_output"]:
            self._clear()
        n = len(self.folders)
        for number in range(1, n + 1):
            if not self._is_complete(number):
                self._check_can_be_made(number, n)
                self._make(number, client, cluster, reporter)
        if n == 0 or self._has_come(n):
            n += 1
            self._make(n, client, cluster, reporter)
        self._note_drop_when()
        counts = {folder.name: Record(folder).steps[STEP]["facts"]["duplicates"] for folder in self.folders}
        return RunOverlaps(self.drop_when, counts, time.monotonic() - started)

    def n_among(self, clips: Collection[str]) -> int:
        """How many of these clips go by overlap. Cost: a reading of the clips that go."""
        wanted, n = pa.array(sorted(clips), pa.string()), 0
        for table in map(tables_in, overlaps_below(self.root)):
            for file in table.files:
                ids = read_table(table.source.at(file.url), ["id"])["id"]
                n += pc.sum(pc.is_in(ids, value_set=wanted)).as_py() or 0
        return n

    def left_out(self) -> Sequence[LeftOut]:
        """The clips that go before any are compared; none where it takes both."""
        if self.drop_when == "both":
            return ()
        found: list[LeftOut] = []
        for folder in overlaps_below(self.root):
            tables = tables_in(folder)
            n_rows = Record(folder).steps[STEP]["facts"]["duplicates"]
            found.append(LeftOut.of(n_rows, tables.files, folder, is_first=not found))
        return found

    def _folder(self, number: int) -> Location:
        return self.root / OVERLAPS.name(number)

    def _base(self, number: int) -> Location | None:
        return self._folder(number - 1) if number > 1 else None

    def _options(self) -> dict[str, Any]:
        """The parameters: those that are given, and of the others those of the first search."""
        entry = {} if self._shared["clear_output"] else Record(self._folder(1)).steps.get(STEP, {})
        known = OverlapsOptions().recorded()
        recorded = {name: value for name, value in entry.get("parameters", {}).items() if name in known}
        return {**known, **recorded, **OverlapsOptions.of({**recorded, **self._given}).recorded()}

    def _parameters(self, number: int) -> dict[str, Any]:
        """What the record of a search is to hold."""
        base = self._base(number)
        return {**self._options(), "base": base and (Record(base).committed(STEP) or {}).get("commit")}

    def _is_complete(self, number: int) -> bool:
        record = Record(self._folder(number))
        return record.committed(STEP) is not None and not record.changed(STEP, self._shared["verify"])

    def _has_come(self, number: int) -> bool:
        """Whether there is other input now than when this search was made."""
        entry = Record(self._folder(number)).steps.get(STEP)
        return entry is not None and entry["input"] != find_source(self.clips, self._base(number)).identity()

    def _check_can_be_made(self, number: int, n: int) -> None:
        """Refuse to make a search again that was complete, where that would give another than it was."""
        folder = self._folder(number)
        record = Record(folder)
        faults = record.changed(STEP, self._shared["verify"])
        if faults and (number < n or self._has_come(number)):
            raise OutputConflictError(
                f"{len(faults)} files of {folder} are not as they were written: {'; '.join(faults[:3])}. There are "
                f"videos that came since, so that they cannot be made again as they were. Put them back, or {ANEW}."
            )

    def _make(
        self, number: int, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter
    ) -> None:
        """Make a search, or complete it."""
        folder, base = self._folder(number), self._base(number)
        take_over = self._shared["take_over"]
        with owned(folder, take_over=take_over, say=reporter.say) as ownership:
            record = Record(folder, ownership.token)
            if STEP in record.steps and record.committed(STEP) is None and self._has_come(number):
                reporter.say(f"{folder.name}: begun again, for videos came since it was begun")
                record.clear([STEP], WRITTEN)
            OverlapSearch(
                self.clips.url,
                folder.url,
                **self._options(),
                base=None if base is None else base.url,
                storage_options=self.root.options,
                verbose=self._shared["verbose"],
                take_over=take_over,
                verify=self._shared["verify"],
            ).run(client, cluster=cluster)

    def _note_drop_when(self) -> None:
        """Put on record which clips go, for runs that follow and for those who read the results."""
        folder = self._folder(1)
        if Record(folder).committed(DROP) is None:
            with owned(folder, take_over=self._shared["take_over"]) as ownership:
                entry = {"status": "committed", "parameters": {"drop_when": self.drop_when}, "facts": {}, "files": {}}
                Record(folder, ownership.token).update(DROP, **entry)

    def _clear(self) -> None:
        """Delete all of them, the newest first, so that none is without its base."""
        for folder in reversed([*self.folders, *OVERLAPS.beyond(self.root)]):
            with owned(folder, take_over=self._shared["take_over"]) as ownership:
                Record(folder, ownership.token).clear(list(NAMES), NAMES)
            folder.remove_if_empty()
