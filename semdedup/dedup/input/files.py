"""What to read, and which files there are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from semdedup.dedup.input.datasets import dataset_files
from semdedup.errors import InputError
from semdedup.runs.lookup import check_recorded
from semdedup.storage.location import FileInfo, Location

EXTENSIONS = {"parquet": (".parquet", ".pq"), "jsonl": (".jsonl", ".ndjson")}
PICKLES = (".pickle", ".pkl")


def find_files(paths: Sequence[Location], filetype: str, outputs: Sequence[Location] = ()) -> list[FileInfo]:
    """List the input: files, folders (at any depth) and patterns. Names that begin with ``_`` or ``.`` are not data.

    What is below `outputs` is left out, so that a result inside the input folder does not become input; but for what is
    below a path that is given and lies in a part of an output that holds no results (``_input``).

    Raises:
        InputError: a path is not there, or there are no files; pickles are refused by name.
    """
    found: dict[str, FileInfo] = {}
    for path in paths:
        if path.is_dir() and (dataset := dataset_files(path)) is not None:
            wanted = dataset
        elif path.is_dir():
            listed = [file for file in path.files() if is_data(file.url[len(path.url) :])]
            wanted = [file for file in listed if file.url.endswith(EXTENSIONS[filetype])]
            if not wanted:
                _refuse_empty(path, listed, filetype)
        elif path.exists():
            if path.url.endswith(PICKLES):
                _refuse_pickles(path.parent)
            wanted = [path.info()]
        else:
            wanted = path.glob() if any(mark in path.url for mark in "*?[") else []
            if not wanted:
                _refuse_absent(path)
        found |= {file.url: file for file in wanted if not _is_below(file.url, _around(path, outputs))}
    if not found:
        raise InputError(
            f"no {filetype} files in {', '.join(map(str, paths))} outside of the output folder; take another output"
        )
    return [found[url] for url in sorted(found)]


def recorded_or_listed(folders: Sequence[Location], name: re.Pattern[str]) -> list[FileInfo]:
    """The Parquet files of folders whose path is like this: those that our record names, else those that are listed.

    Raises:
        InputError: files on record are missing or were changed; or there are no Parquet files.
    """
    found: list[FileInfo] = []
    for folder in folders:

        def is_asked_for(url: str, top: str = folder.url) -> bool:
            return bool(name.search(url)) and is_data(url[len(top) :])

        known = check_recorded(folder, folder.files(), is_asked_for)
        listed = [file for file in find_files([folder], "parquet") if name.search(file.url)]
        found += [file for file in listed if file.url in known] if known else listed
    return found


def is_input(folder: Location, filetype: str, outputs: Sequence[Location], url: str) -> bool:
    """Whether a file of this URL would be found below a folder."""
    ending = EXTENSIONS[filetype]
    return url.endswith(ending) and is_data(url[len(folder.url) :]) and not _is_below(url, _around(folder, outputs))


def _around(path: Location, outputs: Sequence[Location]) -> list[Location]:
    """The outputs but for those that the path lies in, aside of their results."""
    return [out for out in outputs if not _is_below(path.url, [out]) or is_data(path.url[len(out.url.rstrip("/")) :])]


def _is_below(url: str, folders: Sequence[Location]) -> bool:
    return any(url.startswith(folder.url.rstrip("/") + "/") for folder in folders)


def is_data(relative: str) -> bool:
    """Whether no part of a relative path begins with ``_`` or ``.``."""
    return not any(part.startswith(("_", ".")) for part in relative.strip("/").split("/"))


def _refuse_empty(path: Location, listed: Sequence[FileInfo], filetype: str) -> None:
    if any(file.url.endswith(PICKLES) for file in listed):
        _refuse_pickles(path)
    there = sorted({"." + file.url.rsplit("/", 1)[-1].rpartition(".")[2] for file in listed})
    held = f"it holds {len(listed)} files ({', '.join(there[:5])})" if listed else "it is empty"
    raise InputError(f"no {filetype} files in {path}: {held}; files must end in {' or '.join(EXTENSIONS[filetype])}")


def _refuse_pickles(folder: Location) -> None:
    raise InputError(
        f"{folder} holds pickles, which are never read: loading one runs whatever code is in it. The same embeddings "
        f"stand as Parquet in the folder beside it: {folder.parent / (folder.name + '_parquet')}"
    )


def _refuse_absent(path: Location) -> None:
    beside = path.parent / (path.name + "_parquet")
    hint = f"; did you mean {beside}?" if not any(mark in path.url for mark in "*?[") and beside.exists() else ""
    missing = path.missing_container()
    raise InputError(f"no such path: {path}{hint}{': ' * bool(missing)}{missing}")
