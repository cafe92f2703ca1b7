"""The files of a step, by their names in its record: what it may have written, what is there, and deletion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from semdedup.errors import OutputConflictError
from semdedup.storage.location import READ_AHEAD, Location
from semdedup.storage.written import Written, checksum_of


def check_names(root: Location, files: Mapping[str, Iterable[str]], written: Mapping[str, re.Pattern[str]]) -> None:
    """Raise `OutputConflictError` where a step is said to have written files that it cannot have."""
    for step, names in files.items():
        foreign = [name for name in names if step not in written or not written[step].fullmatch(name)]
        if foreign:
            raise OutputConflictError(
                f"the record in {root} says that the step '{step}' wrote {', '.join(map(repr, foreign[:3]))}, which it "
                "cannot have. Nothing was deleted. Choose another output path, or move the folder away as a whole."
            )


def refuse_foreign(place: Location, foreign: Sequence[str], what: str) -> None:
    """Raise `OutputConflictError` where there are files that would be read together with ours: "N files {what}"."""
    if foreign:
        raise OutputConflictError(
            f"{place} holds {len(foreign):,} files {what}: {', '.join(foreign[:3])}. They are not deleted; move them "
            "away, or choose another output path."
        )


def delete_files(root: Location, names: Iterable[str]) -> None:
    """Delete files of a folder by their relative names, and the folders that are empty afterwards."""
    found = sorted(set(names))
    root.remove_files([root.below(name) for name in found])
    folders = {"/".join(name.split("/")[:depth]) for name in found for depth in range(1, name.count("/") + 1)}
    for folder in sorted(folders, key=len, reverse=True):
        (root / folder).remove_if_empty()


def changed_files(root: Location, files: Mapping[str, Written], verify: bool = False) -> list[str]:
    """Files of a record that are missing, or of another size; with `verify` also those of another checksum."""
    missing, faults = set(files), dict[str, str]()
    for name, n_bytes in _sizes_below(root, files):
        if name in missing:
            missing.discard(name)
            if n_bytes != files[name].n_bytes:
                faults[name] = f"{name} has {n_bytes:,} bytes instead of {files[name].n_bytes:,}"
    faults.update({name: f"{name} is missing" for name in missing})
    for name in sorted(files.keys() - faults.keys()) if verify else ():
        with (root / name).open(READ_AHEAD) as file:
            if checksum_of(file) != files[name].checksum:
                faults[name] = f"{name} has another content than was written"
    return [faults[name] for name in sorted(faults)]


def _sizes_below(root: Location, files: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Name and bytes of every file in the folders at the top in which there are to be some of these."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in files}
    if "" in tops and root.is_dir():
        yield from root.sizes().items()
    start = len(root.url.rstrip("/")) + 1
    for top in sorted(tops - {""}):
        for file in (root / top).files():
            yield file.url[start:], file.n_bytes
