"""The record of a folder, ``_manifest.json``: what was written, by which step, from what.

A step is *begun* (its parameters and input are on record, its files under temporary names) and then *committed* (its
files are in place, listed with size and checksum). A step that is being deleted is *clearing*. The same parameters and
input go on with a step that was begun, and find one that was committed; others are refused.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from semdedup.errors import OutputConflictError
from semdedup.runs.files import changed_files, check_names, delete_files
from semdedup.runs.identity import input_words, relative_path, resolve_path
from semdedup.runs.owner import check_owner
from semdedup.storage.location import Location
from semdedup.storage.uploads import abort_uploads
from semdedup.storage.written import Written

FILE_NAME = "_manifest.json"
SCRATCH = "_scratch"
SCRATCH_NAME = re.compile(r"[a-z]+-[0-9a-f]{8}")
"""Name of the folder in there that one run of one step works in: the step, and the token of the run."""

COPIED = re.compile(r"_quarantine/[^/]+\.parquet")
"""What is copied from a cache that is elsewhere."""

INSIDE = re.compile(r"(?!\.{1,2}(/|$))[^/\0]*[^/\0:](/(?!\.{1,2}(/|$))[^/\0]*[^/\0:])*")
"""Names that `Location.below` takes: looked at here, which is ten times faster, for there may be a million of them."""

MOST_INDENTED = 10_000
"""Files up to which a record is indented for people to read; without that it is written in a third of the time."""

FORMAT = 2
KINDS = {"parameters": dict, "input": dict, "facts": dict, "temporary": list, "made_folders": int}
STATUSES = ("begun", "committed", "clearing")


@cache
def versions() -> dict[str, str]:
    """Versions that a result was made with."""
    packages = ("semdedup", "dask", "numpy", "pandas", "pyarrow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


class Record:
    """The ``_manifest.json`` of one folder.

    Args:
        root: the folder.
        token: of the run that owns the folder; each change of the file is made only while it does. None: the folder is
            changed by nobody else (a test), or only read.

    Raises:
        OutputConflictError: the file is damaged, of a later version, or names files outside of the folder.

    Cost: a file on record is 115 bytes in ``_manifest.json``, which is read and written as a whole, and 300 bytes in
    memory (measured with 200,000 files: 0.6 s to read, 0.5 s to write).

    >>> record = Record(Location.of("out"))
    >>> record.committed("pairwise")                     # what is known of the step, or None
    """

    def __init__(self, root: Location, token: str | None = None) -> None:
        self.root, self.token = root, token
        self.location = root / FILE_NAME
        self.steps: dict[str, dict[str, Any]] = {}
        self.cache: dict[str, Any] = {}
        self.old: dict[str, dict[str, Any]] = {}
        if self.location.exists():
            self._read()

    def _read(self) -> None:
        try:
            content = json.loads(self.location.read_bytes())
            found = content["format"]
            if found == 1:
                self.old = {name: _validated_old(self.root, step) for name, step in content["steps"].items()}
            elif found == FORMAT:
                self.steps = {name: _validated(self.root, step) for name, step in content["steps"].items()}
                self.cache = _validated_cache(self.root, content.get("cache", {}))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OutputConflictError(
                f"{self.location} is damaged, or is no record of semdedup ({type(error).__name__}: {error}). Nothing "
                f"was changed. Choose another output path, or move the folder {self.root} away as a whole."
            ) from error
        if found not in (1, FORMAT):
            raise OutputConflictError(
                f"{self.location} has format {found!r}; this version of semdedup reads {FORMAT}. Choose another output "
                "path, or update semdedup."
            )

    def committed(self, step: str) -> dict[str, Any] | None:
        """What is known of a step that is complete, else None."""
        found = self.steps.get(step)
        return found if found and found["status"] == "committed" else None

    @property
    def files(self) -> set[str]:
        """Every file on record, relative to the root."""
        return set(self.names())

    def names(self) -> Iterable[str]:
        """`files`, one after the other."""
        for step in (*self.steps.values(), *self.old.values()):
            yield from step.get("files", ())
        yield from self.cache.get("copies", ())

    def changed(self, step: str, verify: bool = False) -> list[str]:
        """What is wrong with the files of a committed step, a line each: missing, or of another size.

        Args:
            step: its name.
            verify: read them, and compare checksums too.
        """
        files: Mapping[str, Written] = (self.committed(step) or {}).get("files", {})
        return changed_files(self.root, files, verify)

    def check(
        self, step: str, parameters: Mapping[str, Any], source: Mapping[str, Any] | None = None, hint: str = ""
    ) -> None:
        """Refuse to go on where the folder holds this step with other parameters, or from another input.

        Raises:
            OutputConflictError: with every difference.
        """
        if step in self.old:
            raise OutputConflictError(
                f"{self.root} holds results that semdedup 0.1 made, without sizes and checksums. They can be read "
                "(report, extract, shard); a run does not go on with them: clear_output=True (--overwrite) makes them "
                "anew, or choose another output path."
            )
        found = self.steps.get(step)
        if found is None:
            return
        before, now = dict(found["parameters"]), json.loads(json.dumps(parameters))
        differences = [
            f"  {name}: {before.get(name)!r} there, {now.get(name)!r} now"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if source is not None and found["input"] != source:
            then = found["input"]
            same = then["files"] == source["files"] and then.get("rows") == source.get("rows")
            there, given = input_words(then), input_words(source)
            differences.append(f"  input: {there} there, {given} now" + ", changed since" * same)
        if differences:
            raise OutputConflictError(
                f"{self.root} holds results of the step '{step}' that differ from what is asked for:\n"
                + "\n".join(differences)
                + "\nChoose another output path, or clear what semdedup wrote there with clear_output=True "
                "(--overwrite)." + (f" {hint}" if hint else "")
            )

    def update(self, step: str, **changes: Any) -> None:
        """Change what is known of a step, or put it on record; None takes an entry away."""
        entry = {**self.steps.get(step, {}), **changes}
        self.write({**self.steps, step: {name: value for name, value in entry.items() if value is not None}})

    def write(self, steps: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the file, forced to disk; the file goes with the last step.

        Raises:
            OutputConflictError: another run owns the folder now.
        """
        if self.token is not None:
            check_owner(self.root, self.token)
        content = {"format": FORMAT, "steps": steps, **({"cache": self.cache} if self.cache else {})}
        if steps or self.cache:
            n_files = sum(len(step.get("files", ())) for step in steps.values())
            indent = 1 if n_files <= MOST_INDENTED else None
            self.location.write_bytes(json.dumps(content, indent=indent, sort_keys=True).encode(), forced=True)
        else:
            self.location.remove()
        self.steps = {name: _as_read(step) for name, step in steps.items()}

    @property
    def every_step(self) -> Mapping[str, Mapping[str, Any]]:
        """All steps that a result is made of, those below another root too."""
        return {**self.cache.get("steps", {}), **self.steps}

    def include(self, other: Record, copies: Collection[str]) -> None:
        """Put on record the steps whose results lie below another root, and the files of theirs that are copied here.

        Copies that were on record before and are not any more are deleted.
        """
        if not self.includes(other, copies):
            for name in set(self.cache.get("copies", ())) - set(copies):
                self.root.below(name).remove()
            self.cache = self._entry_of(other, copies)
            self.write(self.steps)

    def includes(self, other: Record, copies: Collection[str]) -> bool:
        """Whether the steps of another root and these copies of their files are on record as they are."""
        return self.cache == json.loads(json.dumps(self._entry_of(other, copies)))

    def _entry_of(self, other: Record, copies: Collection[str]) -> dict[str, Any]:
        steps = {name: _without_files(step) for name, step in other.steps.items() if name not in self.steps}
        return {"root": relative_path(other.root, self.root), "steps": steps, "copies": sorted(copies)}

    @property
    def cache_root(self) -> Location | None:
        """The other root that `include` was given."""
        return None if "root" not in self.cache else resolve_path(self.cache["root"], self.root)

    def clear(
        self, steps: Collection[str], written: Mapping[str, re.Pattern[str]], also: Mapping[str, Collection[str]] = {}
    ) -> None:
        """Delete what these steps wrote, file by file, and their scratch folders; the record with its last step.

        Nothing else is touched: no other step, no file that the step cannot have written, and a folder only where it is
        empty afterwards. What is known of steps below another root, and the copies of their files, go with the first
        of these steps.

        Args:
            steps: their names.
            written: for each step, what the names of its files look like.
            also: for each step, files of it that a table of its own names; they go before what is on record.

        Raises:
            OutputConflictError: the record names a file that its step does not write. Nothing was deleted.
        """
        known = {**self.old, **self.steps}
        cleared = {name: step for name, step in known.items() if name in steps}
        kept = {name: step for name, step in self.steps.items() if name not in steps}
        elsewhere = self.cache.get("steps", {})
        with_cache = bool(self.cache) and (not elsewhere or any(name in steps for name in elsewhere))
        if not cleared and not with_cache:
            return
        if self.old and self.old.keys() - set(steps):
            raise OutputConflictError(
                f"{self.root} holds several steps that semdedup 0.1 made; make all of them anew together, with the "
                "command that made them and --overwrite, or choose another output path."
            )
        files = {file for step in cleared.values() for file in step.get("files", ())}
        check_names(self.root, {name: step.get("files", ()) for name, step in cleared.items()}, written)
        check_names(self.root, also, written)
        self.old = {}
        # From here to the end a run may be killed: none of these steps must pass for complete.
        self.write({**kept, **{name: {**step, "status": "clearing"} for name, step in cleared.items()}})
        delete_files(self.root, (name for names in also.values() for name in names))
        for step in cleared.values():
            for name in step.get("temporary", ()):
                self.root.below(name).remove_tree()
        (self.root / SCRATCH).remove_if_empty()
        if with_cache:
            files |= set(self.cache["copies"])
            self.cache = {}
        delete_files(self.root, files)
        self.write(kept)

    def remove_strays(self, in_place: re.Pattern[str] | None = None) -> None:
        """Delete what killed runs left: scratch folders that are off the record, and files half written or uploaded.

        Scratch folders that carry the token of this run stay: one of its steps has made them for the next.

        Args:
            in_place: what the names of files look like that tasks put below the root themselves.
        """
        self.root.remove_unfinished()
        abort_uploads(self.root, lambda name: self._is_ours(name) or bool(in_place and in_place.fullmatch(name)))
        wanted = {name for step in self.steps.values() for name in (step.get("temporary") or ())}
        scratch = self.root / SCRATCH
        names = scratch.folder_names() if scratch.is_dir() else []
        for name in names:
            of_this_run = self.token is not None and name.endswith(f"-{self.token}")
            if SCRATCH_NAME.fullmatch(name) and not of_this_run and f"{SCRATCH}/{name}" not in wanted:
                (scratch / name).remove_tree()
        scratch.remove_if_empty()

    def _is_ours(self, name: str) -> bool:
        """Whether a file is in a scratch folder, or on record. Others may work in folders below this one."""
        folder, _, rest = name.partition("/")
        in_scratch = folder == SCRATCH and SCRATCH_NAME.fullmatch(rest.partition("/")[0]) is not None
        return in_scratch or name in self.files


def _as_read(step: Mapping[str, Any]) -> dict[str, Any]:
    """An entry that was written, as it will be read; its files, of which there may be many, are not copied."""
    found: dict[str, Any] = json.loads(json.dumps({name: value for name, value in step.items() if name != "files"}))
    return {**found, **({"files": step["files"]} if "files" in step else {})}


def _with_written(root: Location, files: dict[str, Any]) -> dict[str, Written]:
    """The files of an entry, in place, as `Written`, after checking their names and values."""
    for name, value in files.items():
        if not INSIDE.fullmatch(name):
            root.below(name)
        if not isinstance(value[0], int) or not isinstance(value[1], str):
            raise TypeError(f"{name}: {value!r}")
        files[name] = Written(*value)
    return files


def _without_files(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step whose files are elsewhere: everything but their list."""
    return {name: value for name, value in step.items() if name not in ("files", "temporary")}


def _validated(root: Location, step: Any) -> dict[str, Any]:
    """An entry of a record, after checking everything that is acted on later."""
    if step["status"] not in STATUSES:
        raise ValueError(f"status {step['status']!r}")
    for name, kind in KINDS.items():
        if name in step and not isinstance(step[name], kind):
            raise TypeError(f"{name} is {step[name]!r}")
    _check_scratch(root, step)
    source = {"files": 0, "bytes": 0, "digest": "", **step.get("input", {})}
    if not isinstance(source["files"], int) or not isinstance(source["bytes"], int):
        raise TypeError(f"input is {source!r}")
    files = {"files": _with_written(root, step["files"])} if "files" in step else {}
    return {"parameters": {}, **step, "input": source, **files}


def _check_scratch(root: Location, step: Any) -> None:
    for name in step.get("temporary", ()):
        root.below(name)
        folder, _, rest = name.partition("/")
        if folder != SCRATCH or not SCRATCH_NAME.fullmatch(rest):
            raise ValueError(f"{name!r} is no scratch folder")


def _validated_old(root: Location, step: Any) -> dict[str, Any]:
    """An entry of format 1: files without size."""
    _check_scratch(root, step)
    return {
        "status": step["status"],
        "parameters": dict(step["parameters"]),
        "facts": dict(step.get("facts", {})),
        "temporary": list(step.get("temporary", ())),
        "files": {name: Written(-1, "") for name in step.get("files", ()) if root.below(name)},
    }


def _validated_cache(root: Location, cache: Any) -> dict[str, Any]:
    if not cache:
        return {}
    for name in cache["copies"]:
        root.below(name)
        if not COPIED.fullmatch(name):
            raise ValueError(f"{name!r} is no copy of a file of a cache")
    steps = {name: _validated(root, step) for name, step in cache["steps"].items()}
    return {"root": str(cache["root"]), "steps": steps, "copies": list(cache["copies"])}
