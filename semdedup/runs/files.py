"""The files of a step, by their names in its record: what it may have written, what is there, and deletion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from semdedup.errors import OutputConflictError
from semdedup.storage.location import Location
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
    there: dict[str, int] = {}
    prefix = len(root.url.rstrip("/")) + 1
    if any("/" not in name for name in files) and root.is_dir():
        there |= root.sizes()
    for top in sorted({name.split("/")[0] for name in files if "/" in name}):
        listed = ((file.url[prefix:], file.n_bytes) for file in (root / top).files())
        there |= {name: n_bytes for name, n_bytes in listed if name in files}
    faults = []
    for name, written in sorted(files.items()):
        if name not in there:
            faults.append(f"{name} is missing")
        elif there[name] != written.n_bytes:
            faults.append(f"{name} has {there[name]:,} bytes instead of {written.n_bytes:,}")
        elif verify:
            with (root / name).open() as file:
                if checksum_of(file) != written.checksum:
                    faults.append(f"{name} has another content than was written")
    return faults
