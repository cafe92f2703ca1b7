"""The manifest: what was written, by which step, from what; and the rules of commit, resume and refusal.

A step is *begun* (its parameters and input are on record, its files under temporary names) and then *committed* (its
files are in place and listed). The same parameters and input go on with a step that was begun, and find one that was
committed; others are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.storage import FileInfo, Location

FILE_NAME = "_manifest.json"
SCRATCH = "_scratch"
SCRATCH_NAME = re.compile(r"[a-z]+-[0-9a-f]{8}")
"""Name of the folder in there that one run of one step works in."""

FORMAT = 1


def fingerprint(files: Iterable[FileInfo]) -> dict[str, Any]:
    """What identifies an input: how many files and bytes, and a digest of their paths, sizes and stamps."""
    listed = sorted((file.url, file.n_bytes, file.stamp) for file in files)
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return {"files": len(listed), "bytes": sum(n for _, n, _ in listed), "digest": digest}


@cache
def versions() -> dict[str, str]:
    """Versions that a result was made with."""
    packages = ("semdedup", "dask", "numpy", "pandas", "pyarrow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


class Manifest:
    """The ``_manifest.json`` of one folder.

    >>> manifest = Manifest(Location.of("out"))
    >>> manifest.committed("pairwise")                   # its record, or None
    """

    def __init__(self, root: Location) -> None:
        self.root = root
        self.location = root / FILE_NAME
        self.steps: dict[str, dict[str, Any]] = {}
        self.cache: dict[str, Any] = {}
        if self.location.exists():
            try:
                content = self.location.read_json()
                found = content.get("format")
            except (ValueError, AttributeError) as error:
                raise OutputConflictError(
                    f"{self.location} is no manifest of semdedup; move it away, or choose another output path"
                ) from error
            if found != FORMAT:
                raise OutputConflictError(
                    f"{self.location} has format {found!r}; this version of semdedup reads {FORMAT}"
                )
            self.steps, self.cache = content["steps"], content.get("cache", {})

    def committed(self, step: str) -> dict[str, Any] | None:
        """Record of a step that is complete, else None."""
        record = self.steps.get(step)
        return record if record and record["status"] == "committed" else None

    @property
    def files(self) -> set[str]:
        """Every file on record, relative to the root."""
        return {name for record in self.steps.values() for name in record.get("files", ())} | set(
            self.cache.get("copies", ())
        )

    def check(
        self, step: str, parameters: Mapping[str, Any], source: Mapping[str, Any] | None = None, hint: str = ""
    ) -> None:
        """Refuse to go on where the folder holds this step with other parameters, or from another input.

        Raises:
            OutputConflictError: with every difference.
        """
        record = self.steps.get(step)
        if record is None:
            return
        before, now = dict(record["parameters"]), json.loads(json.dumps(parameters))
        differences = [
            f"  {name}: {before.get(name)!r} there, {now.get(name)!r} now"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if source is not None and record["input"] != source:
            then = record["input"]
            differences.append(
                f"  input: {then['files']} files of {then['bytes']:,} bytes there, {source['files']} files of "
                f"{source['bytes']:,} bytes now" + ", changed since" * (then["files"] == source["files"])
            )
        if differences:
            raise OutputConflictError(
                f"{self.root} holds results of the step '{step}' that differ from what is asked for:\n"
                + "\n".join(differences)
                + "\nChoose another output path, or clear what semdedup wrote there with clear_output=True "
                "(--overwrite)." + (f" {hint}" if hint else "")
            )

    def begin(
        self, step: str, parameters: Mapping[str, Any], source: Mapping[str, Any], temporary: Sequence[str]
    ) -> None:
        """Put a step on record before its first file is written; `temporary` are the folders that it works in.

        They must have names of their own each time: tasks of a run that was killed may outlive it, and what they still
        write must not get into a later run. On a step that was begun already, this changes nothing.
        """
        if step not in self.steps:
            record = {
                "status": "begun",
                "parameters": dict(parameters),
                "input": dict(source),
                "temporary": list(temporary),
                "made_folder": not self.root.exists(),
            }
            self._write({**self.steps, step: record})

    def reopen(
        self, step: str, parameters: Mapping[str, Any], source: Mapping[str, Any], temporary: Sequence[str]
    ) -> None:
        """Put a step that is complete back to begun, because more is to come; its files and facts stay on record."""
        begun = {"status": "begun", "parameters": dict(parameters), "input": dict(source), "temporary": list(temporary)}
        self._write({**self.steps, step: {**self.steps[step], **begun}})

    def scratch(self, step: str) -> Location:
        """The folder that a step works in until it is committed."""
        return self.root / self.steps[step]["temporary"][0]

    def remove_strays(self) -> None:
        """Delete what is left in the scratch folder by runs that are no longer on record, or were killed at the end."""
        begun = [record for record in self.steps.values() if record["status"] == "begun"]
        wanted = {folder for record in begun for folder in record["temporary"]}
        scratch = self.root / SCRATCH
        there = {file.url[len(scratch.url) + 1 :].split("/")[0] for file in scratch.files()}
        for name in there:
            if SCRATCH_NAME.fullmatch(name) and f"{SCRATCH}/{name}" not in wanted:
                (scratch / name).remove_tree()
        scratch.remove_if_empty()

    @contextlib.contextmanager
    def refusing(self, step: str) -> Iterator[None]:
        """While a step still checks its input: a refusal takes back everything, as if the step had not begun.

        The corrected command then finds nothing in its way.
        """
        try:
            yield
        except (InputError, ParameterError):
            record = self.steps.get(step)
            if record is not None and record["status"] == "begun":
                for folder in record["temporary"]:
                    (self.root / folder).remove_tree()
                (self.root / SCRATCH).remove_if_empty()
                self._write({name: other for name, other in self.steps.items() if name != step})
                if not self.steps and not self.cache:
                    self.location.remove()
                    if record["made_folder"]:
                        self.root.remove_if_empty()
            raise

    def announce(self, step: str, files: Sequence[str]) -> None:
        """Put on record which files are about to be put in place: `clear` finds them wherever a run is killed."""
        self._write({**self.steps, step: {**self.steps[step], "files": sorted(files)}})

    def commit(self, step: str, files: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Put on record that a step is complete: its files, relative to the root, and its facts."""
        record = {**self.steps[step], "status": "committed", "files": sorted(files), "facts": dict(facts)}
        self._write({**self.steps, step: {**record, "versions": versions()}})

    def include(self, cache: Manifest, copies: Sequence[str]) -> None:
        """Tell of the steps whose results lie below another root, and of the files of theirs that are copied here."""
        steps = {name: record for name, record in cache.steps.items() if name not in self.steps}
        told = {"root": str(cache.root), "steps": steps, "copies": sorted(copies)}
        if told != self.cache:
            self.cache = told
            self._write(self.steps)

    def _write(self, steps: dict[str, dict[str, Any]]) -> None:
        cache = {"cache": self.cache} if self.cache else {}
        self.location.write_json({"format": FORMAT, "steps": steps, **cache})
        self.steps = json.loads(json.dumps(steps))

    def clear(self, steps: Collection[str]) -> None:
        """Delete what these steps wrote, file by file, and their temporary folders; the manifest with its last step.

        Nothing else is touched: a folder goes only where it is empty afterwards.
        """
        cleared = [record for name, record in self.steps.items() if name in steps]
        kept = {name: record for name, record in self.steps.items() if name not in steps}
        for record in cleared:
            for folder in record["temporary"]:
                (self.root / folder).remove_tree()
        (self.root / SCRATCH).remove_if_empty()
        files = {name for record in cleared for name in record.get("files", ())}
        if not kept:
            files |= set(self.cache.get("copies", ()))
        folders = set()
        for file in files:
            (self.root / file).remove()
            parts = file.split("/")
            folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        for folder in sorted(folders, key=len, reverse=True):
            (self.root / folder).remove_if_empty()
        if kept:
            self._write(kept)
        elif self.steps or self.cache:
            self.location.remove()
            self.steps, self.cache = {}, {}
