"""The manifest: what was written, by which step, from what; and the rules of commit, resume and refusal.

A step is *begun* (its parameters and input are on record, its files under temporary names) and then *committed* (its
files are in place and listed). The same parameters and input go on with a step that was begun, and find one that was
committed; others are refused. A step that is being deleted is on record as *clearing*.
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
from semdedup.storage.location import FileInfo, Location

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
        write must not get into a later run. On a step that was begun already, this changes nothing. What is left of one
        that a run was deleting when it was killed goes first.
        """
        if step in self.steps and self.steps[step]["status"] == "clearing":
            self.clear([step])
        if step not in self.steps:
            record = {
                "status": "begun",
                "parameters": dict(parameters),
                "input": dict(source),
                "temporary": list(temporary),
                "made_folders": len(self.root.absent_folders()),
            }
            self._write({**self.steps, step: record})

    def reopen(
        self, step: str, parameters: Mapping[str, Any], source: Mapping[str, Any], temporary: Sequence[str]
    ) -> None:
        """Put a step that is complete back to begun, because more is to come; its files and facts stay on record.

        Raises:
            ValueError: the step is not complete.
        """
        if not self.committed(step):
            raise ValueError(f"the step {step!r} of {self.root} is not complete")
        begun = {"status": "begun", "parameters": dict(parameters), "input": dict(source), "temporary": list(temporary)}
        self._write({**self.steps, step: {**self.steps[step], **begun}})

    def scratch(self, step: str) -> Location:
        """The folder that a step works in until it is committed."""
        return self.root / self.steps[step]["temporary"][0]

    def remove_strays(self) -> None:
        """Delete what killed runs left: scratch folders that are off the record, and a manifest half written."""
        self.root.remove_unfinished()
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

        The corrected command then finds nothing in its way. A step that was reopened stays begun, with its files.
        """
        try:
            yield
        except (InputError, ParameterError):
            record = self.steps.get(step)
            if record is not None and record["status"] == "begun" and "facts" not in record:
                for name in record["temporary"]:
                    (self.root / name).remove_tree()
                (self.root / SCRATCH).remove_if_empty()
                self._write({name: other for name, other in self.steps.items() if name != step})
                if not self.steps and not self.cache:
                    self.location.remove()
                    folder = self.root
                    for _ in range(record.get("made_folders", 0)):
                        folder.remove_if_empty()
                        folder = folder.parent
            raise

    def announce(self, step: str, files: Sequence[str]) -> None:
        """Put on record which files are about to be put in place: `clear` finds them wherever a run is killed."""
        self._write({**self.steps, step: {**self.steps[step], "files": sorted(files)}})

    def commit(self, step: str, files: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Put on record that a step is complete: its files, relative to the root, and its facts."""
        record = {**self.steps[step], "status": "committed", "files": sorted(files), "facts": dict(facts)}
        self._write({**self.steps, step: {**record, "versions": versions()}})

    @property
    def every_step(self) -> Mapping[str, Mapping[str, Any]]:
        """Records of all steps that a result is made of, those below another root too."""
        return {**self.cache.get("steps", {}), **self.steps}

    def note_seconds(self, step: str, seconds: float) -> None:
        """Put on record how long the run took that completed a step. One that was resumed took longer in all."""
        self._write({**self.steps, step: {**self.steps[step], "seconds": round(seconds, 3)}})

    def complete(
        self, step: str, moves: Sequence[tuple[Location, str]], files: Sequence[str], facts: Mapping[str, Any]
    ) -> None:
        """Put the finished files of a step in place and commit it; its scratch folder goes.

        Called again after it was interrupted, it moves what is left.

        Args:
            step: name of the step, which was begun.
            moves: where files were made, and the folder below the root that they go to, empty for the root itself.
            files: all that the step wrote, relative to the root.
            facts: what is to be known of the step.
        """
        scratch = self.scratch(step)
        self.announce(step, files)
        for made, folder in moves:
            made.move_into(self.root / folder if folder else self.root)
        self.commit(step, files, facts)
        scratch.remove_tree()
        scratch.parent.remove_if_empty()

    def include(self, cache: Manifest, copies: Sequence[str]) -> None:
        """Tell of the steps whose results lie below another root, and of the files of theirs that are copied here.

        Copies that were told of before and are not any more are deleted.
        """
        steps = {name: record for name, record in cache.steps.items() if name not in self.steps}
        told = {"root": str(cache.root), "steps": steps, "copies": sorted(copies)}
        if told != self.cache:
            for name in set(self.cache.get("copies", ())) - set(copies):
                (self.root / name).remove()
            self.cache = told
            self._write(self.steps)

    def _write(self, steps: dict[str, dict[str, Any]]) -> None:
        cache = {"cache": self.cache} if self.cache else {}
        self.location.write_json({"format": FORMAT, "steps": steps, **cache})
        self.steps = json.loads(json.dumps(steps))

    def doom(self, step: str) -> None:
        """Put on record that a step is being deleted: wherever that is interrupted, it does not pass for complete."""
        self._write({**self.steps, step: {**self.steps[step], "status": "clearing"}})

    def clear(self, steps: Collection[str]) -> None:
        """Delete what these steps wrote, file by file, and their temporary folders; the manifest with its last step.

        Nothing else is touched: no other step, and a folder only where it is empty afterwards. What is told of steps
        below another root, and the copies of their files, go with the first of these steps.
        """
        cleared = {name: record for name, record in self.steps.items() if name in steps}
        kept = {name: record for name, record in self.steps.items() if name not in steps}
        told = self.cache.get("steps", {})
        with_cache = bool(self.cache) and (not told or any(name in steps for name in told))
        if not cleared and not with_cache:
            return
        # From here to the end a run may be killed: none of these steps must pass for complete.
        self._write({**kept, **{name: {**record, "status": "clearing"} for name, record in cleared.items()}})
        for record in cleared.values():
            for folder in record["temporary"]:
                (self.root / folder).remove_tree()
        (self.root / SCRATCH).remove_if_empty()
        files = {name for record in cleared.values() for name in record.get("files", ())}
        if with_cache:
            files |= set(self.cache["copies"])
            self.cache = {}
        folders = set()
        for file in files:
            (self.root / file).remove()
            parts = file.split("/")
            folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        for folder in sorted(folders, key=len, reverse=True):
            (self.root / folder).remove_if_empty()
        if kept or self.cache:
            self._write(kept)
        else:
            self.location.remove()
            self.steps = {}
