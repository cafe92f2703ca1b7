"""Readers ask the record: which files of a folder a step has committed, and whether they are all there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from semdedup.errors import InputError, OutputConflictError
from semdedup.runs.record import FILE_NAME, Record
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.written import Written

LEVELS = 4
"""How far above a folder its record is looked for; no step puts its tables deeper."""


def find_record(folder: Location) -> Record | None:
    """The record that names files of a folder: that of the folder itself, or of one of those around it."""
    place = folder
    for _ in range(LEVELS + 1):
        if (place / FILE_NAME).exists():
            try:
                record = Record(place)
            except OutputConflictError:
                return None  # of something else, or damaged: its files are foreign
            prefix = folder.url[len(place.url.rstrip("/")) :].strip("/")
            if any(name.startswith(f"{prefix}/" if prefix else "") for name in record.names()):
                return record
        if place.parent.url == place.url:
            return None
        place = place.parent
    return None


def recorded_files(folder: Location) -> dict[str, tuple[str, Written]]:
    """Files below a folder that steps have on record: by URL the step, and size and checksum."""
    record = find_record(folder)
    if record is None:
        return {}
    root = record.root.url.rstrip("/")
    below = folder.url.rstrip("/") + "/"
    return {
        url: (step, written)
        for step, entry in record.steps.items()
        if entry["status"] != "clearing"
        for name, written in entry.get("files", {}).items()
        if written.n_bytes >= 0  # not of a file that is about to go
        and (url := f"{root}/{name}").startswith(below)
    }


def check_recorded(folder: Location, listed: Iterable[FileInfo], among: Callable[[str], bool]) -> dict[str, Written]:
    """Make sure that every file on record below a folder is listed in its size.

    Args:
        folder: the folder.
        listed: its files.
        among: whether the file of a URL is asked for at all.

    Returns:
        What the record says of the files asked for, by URL; nothing for a folder without a record of ours.

    Raises:
        InputError: files are missing or were changed, with their names and step.
    """
    recorded = recorded_files(folder)
    there = {file.url: file.n_bytes for file in listed}
    wrong: dict[str, list[str]] = {}
    for url, (step, written) in recorded.items():
        if among(url) and there.get(url) != written.n_bytes:
            wrong.setdefault(step, []).append(f"{url} is missing" if url not in there else f"{url} has another size")
    for step, faults in wrong.items():
        raise InputError(
            f"{len(faults)} files that the step '{step}' wrote to {folder} are not as it left them: "
            f"{'; '.join(sorted(faults)[:3])}. Run the command that made them again: it makes anew what is missing."
        )
    return {url: written for url, (_, written) in recorded.items() if among(url)}


def known_files(folders: Iterable[Location]) -> Mapping[str, Written]:
    """What records say of the files below some folders, by URL, for `semdedup.runs.identity.fingerprint`."""
    found: dict[str, Written] = {}
    for folder in {folder.url: folder for folder in folders}.values():
        found |= {url: written for url, (_, written) in recorded_files(folder).items()}
    return found
