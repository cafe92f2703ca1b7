"""What dead runs have left in a folder: how much it is, and how it is deleted."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from semdedup.display import Displayable
from semdedup.errors import OutputConflictError, ParameterError
from semdedup.runs.owner import WATCH_S, Ownership, owned, read_owner
from semdedup.runs.record import FILE_NAME, SCRATCH, SCRATCH_NAME, Record
from semdedup.storage.location import UNFINISHED, Location

ESTIMATE = re.compile(r"_estimate-[0-9a-f]{12}")
"""Name of the folder that an estimate works in, which has nothing else in it."""

EXPORT = "export"
"""Name of the scratch folder of an export, which begins again."""

ABOVE = 2
"""How many folders above the one that is cleaned may have an owner whose run works below."""


@dataclass(frozen=True)
class Leftover:
    """A scratch folder, or the files half written of a folder.

    Attributes:
        path: of the scratch folder, or of the folder that the files are in.
        n_files, n_bytes: what it holds.
        goes_on: whether the same command, run again, would go on from it.
        files: URLs of files half written; none of a scratch folder, which goes as a whole.
        home: URL of the folder that a run must own to delete it.
    """

    path: str
    n_files: int
    n_bytes: int
    goes_on: bool = False
    files: tuple[str, ...] = ()
    home: str = ""


@dataclass(frozen=True, repr=False)
class Cleaning(Displayable):
    """What dead runs have left, the largest first, and what of it was deleted.

    Attributes:
        place: the folder.
        found: what there was.
        deleted: what of it is gone now.
        busy: folders that were passed over, with who is at work there, or what is wrong.
    """

    place: str
    found: tuple[Leftover, ...]
    deleted: tuple[Leftover, ...] = ()
    busy: Mapping[str, str] | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of all that was found."""
        return sum(each.n_bytes for each in self.found)

    def to_json(self) -> dict[str, Any]:
        """Everything that there is to tell, as JSON values."""
        gone = {each.path for each in self.deleted}
        shown = [
            {"path": each.path, "files": each.n_files, "bytes": each.n_bytes, "goes_on": each.goes_on,
             "deleted": each.path in gone}
            for each in self.found
        ]  # fmt: skip
        return {"place": self.place, "found": shown, "busy": dict(self.busy or {})}

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        gone = {each.path for each in self.deleted}
        lines = [(each.path, _words(each, each.path in gone)) for each in self.found]
        freed = sum(each.n_bytes for each in self.deleted)
        return [
            ("folder", self.place),
            *lines,
            *((path, f"passed over: {why}") for path, why in (self.busy or {}).items()),
            ("left by dead runs", f"{self.n_bytes:,} bytes"),
            *([("deleted", f"{freed:,} bytes")] if self.deleted else []),
        ]


def _words(each: Leftover, is_gone: bool) -> str:
    words = f"{each.n_bytes:,} bytes in {each.n_files:,} files"
    words += ", half written" if each.files else ""
    words += ", of a run that can go on" if each.goes_on else ""
    return words + (", deleted" if is_gone else "")


def clean(
    path: str,
    *,
    delete: bool = True,
    unfinished: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Cleaning:
    """Delete what runs that are dead have left in a folder and in all below it: scratch, and files half written.

    A run deletes what was left in its own folder when it begins; this is for folders that no run comes back to. Results
    and records stay as they are, and so does everything where a run is at work.

    Args:
        path: an output, or a folder of such; local or remote.
        delete: whether to; otherwise sizes are told.
        unfinished: delete the scratch of killed runs, too, from which the same command would go on: it then makes that
            step from its beginning.
        storage_options: for fsspec.

    Raises:
        ParameterError: no such path.

    Cost: a listing of the folder and all below it.

    Example:
        >>> clean("out", delete=False).n_bytes
    """
    root = Location.of(path, storage_options)
    if not root.is_dir():
        raise ParameterError(f"{path} is a file; name the folder" if root.exists() else f"no such path: {path}")
    found, busy = [], {}
    for home, leftovers in _by_home(root, _find(root)).items():
        why = _who_is_at_work(root, root.at(home))
        if why:
            busy[home] = why
        else:
            found += leftovers
    cleaning = Cleaning(str(root), tuple(sorted(found, key=lambda each: (-each.n_bytes, each.path))), (), busy)
    return _deleted(root, cleaning, unfinished) if delete else cleaning


def _find(root: Location) -> Iterator[Leftover]:
    """What there may be of dead runs, by names; `goes_on` is not known yet."""
    sizes: dict[str, list[int]] = defaultdict(list)
    halves: dict[str, list[tuple[str, int]]] = defaultdict(list)
    start = len(root.url.rstrip("/")) + 1
    for file in root.files():
        parts = file.url[start:].split("/")
        at = next((i for i, part in enumerate(parts[:-1]) if part == SCRATCH or ESTIMATE.fullmatch(part)), None)
        if at is not None:
            depth = at + 2 if parts[at] == SCRATCH else at + 1
            if depth < len(parts) and _is_scratch(parts[depth - 1]):
                sizes["/".join(parts[:depth])].append(file.n_bytes)
        elif UNFINISHED.fullmatch(parts[-1]):
            halves["/".join(parts[:-1])].append((file.url, file.n_bytes))
    for name, numbers in sizes.items():
        yield Leftover(str(root / name), len(numbers), sum(numbers), home=(root / name).url)
    for name, files in halves.items():
        place = root / name if name else root
        urls = tuple(url for url, _ in files)
        yield Leftover(str(place), len(files), sum(n_bytes for _, n_bytes in files), files=urls, home=place.url)


def _is_scratch(name: str) -> bool:
    return bool(SCRATCH_NAME.fullmatch(name) or ESTIMATE.fullmatch(name)) or name == EXPORT


def _by_home(root: Location, leftovers: Iterable[Leftover]) -> dict[str, list[Leftover]]:
    """By the folder whose run they are of: the one around the scratch, or the next one up that has a record."""
    found: dict[str, list[Leftover]] = defaultdict(list)
    for each in leftovers:
        place = root.at(each.home)
        if not each.files:
            home = place if ESTIMATE.fullmatch(place.name) else place.parent.parent
        else:
            home = place
            while home.url.rstrip("/") != root.url.rstrip("/") and not (home / FILE_NAME).exists():
                home = home.parent
        found[home.url].append(replace(each, home=home.url, goes_on=_goes_on(home, place)))
    return found


def _goes_on(home: Location, scratch: Location) -> bool:
    """Whether a scratch folder is on record as that of a step that was begun."""
    try:
        steps = Record(home).steps.values()
    except OutputConflictError:
        return False
    return any(f"{SCRATCH}/{scratch.name}" in step.get("temporary", ()) for step in steps)


def _who_is_at_work(root: Location, home: Location) -> str:
    """Who may be at work in a folder, or above it; empty where nobody is."""
    places = [home]
    above = len(home.url[len(root.url.rstrip("/")) :].strip("/").split("/")) + ABOVE
    for _ in range(above):
        if places[-1].parent.url == places[-1].url:
            break
        places.append(places[-1].parent)
    for place in places:
        owner = read_owner(place)
        if owner is not None and not owner.is_gone and time.time() - owner.heartbeat <= WATCH_S:
            return f"a run is at work in {place}: {owner}"
    return ""


def _deleted(root: Location, cleaning: Cleaning, unfinished: bool) -> Cleaning:
    """Delete what was found, each as the owner of its folder."""
    deleted: list[Leftover] = []
    busy = dict(cleaning.busy or {})
    for home in dict.fromkeys(each.home for each in cleaning.found):
        wanted = [each for each in cleaning.found if each.home == home and (unfinished or not each.goes_on)]
        if not wanted:
            continue
        place = root.at(home)
        try:
            with owned(place) as ownership:
                for each in wanted:
                    _delete(root, place, each, ownership)
                (place / SCRATCH).remove_if_empty()
        except OutputConflictError as error:
            busy[home] = str(error)
            continue
        if ESTIMATE.fullmatch(place.name):
            place.remove_tree()
        deleted += wanted
    return replace(cleaning, deleted=tuple(deleted), busy=busy)


def _delete(root: Location, home: Location, each: Leftover, ownership: Ownership) -> None:
    ownership.check()
    if each.files:
        root.remove_files([root.at(url) for url in each.files])
    elif not ESTIMATE.fullmatch(home.name):
        (home / SCRATCH / each.path.rstrip("/").rsplit("/", 1)[-1]).remove_tree()
