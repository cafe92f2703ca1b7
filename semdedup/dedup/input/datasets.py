"""Folders that are one data set: of Lance, and of Hugging Face's `save_to_disk`. They are known by what they hold."""

from __future__ import annotations

import re

from semdedup.errors import BadFileError, InputError
from semdedup.storage.file_list import FileList
from semdedup.storage.location import FileInfo, Location

MANIFEST = re.compile(r"/_versions/(\d+)\.manifest$")
"""The file of a version of a Lance data set. It stands for the data set in a list of files: a new version is a new
file, so that it tells one content from another, and every worker can be asked whether it sees it."""

NEWEST_FIRST = 2**64 - 1
"""Newer versions of Lance number the files backwards from here, so that a listing begins with the latest."""

LANCE_DATA = re.compile(r"/data/[^/]+\.lance$")
"""The files that hold the rows of a Lance data set."""

STATE, INFO, SPLITS, ARROW = "state.json", "dataset_info.json", "dataset_dict.json", (".arrow", ".feather")


def kind_of(url: str, filetype: str) -> str:
    """How a file of the input is read: ``lance``, ``arrow``, else the file type that was asked for."""
    if MANIFEST.search(url):
        return "lance"
    return "arrow" if url.lower().endswith(ARROW) else filetype


def lance_place(url: str) -> tuple[str, int]:
    """The URL of a Lance data set and its version, of the URL of the manifest."""
    found = MANIFEST.search(url)
    assert found is not None
    number = int(found[1])
    return url[: found.start()], NEWEST_FIRST - number if number > NEWEST_FIRST // 2 else number


def dataset_folders(files: FileList) -> list[str]:
    """URLs of the folders that are data sets, by the names of the files that were found in them, in order."""
    urls = files.ending_in(".manifest", ".lance").urls()
    lance = {url[: found.start()] for url in urls if (found := MANIFEST.search(url) or LANCE_DATA.search(url))}
    states = files.named(STATE).folders() & files.named(INFO).folders()
    if states:
        states &= {url.rpartition("/")[0] for url in files.ending_in(*ARROW).urls() if url.endswith(ARROW)}
    return sorted(lance | states)


def dataset_files(path: Location) -> list[FileInfo] | None:
    """The files that stand for the data set in a folder; None for any other folder.

    Raises:
        InputError: the folder holds several, or is not complete.
    """
    if (path / "_versions").is_dir():
        listed = path.files()
        manifests = [file for file in listed.ending_in(".manifest") if MANIFEST.search(file.url)]
        versions = {
            file.url: lance_place(file.url)[1] for file in manifests if file.url.startswith(f"{path}/_versions/")
        }
        if not versions:
            raise InputError(f"{path} has a folder _versions without a manifest: it is no complete Lance data set")
        latest = path.at(max(versions, key=versions.__getitem__)).info()
        return [FileInfo(latest.url, int(listed.n_bytes.sum()), latest.stamp)]
    if (path / SPLITS).exists():
        splits = _json(path / SPLITS, "splits")
        names = ", ".join(str(path / str(name)) for name in splits)
        raise InputError(f"{path} holds several data sets, which Hugging Face calls splits; name one or some: {names}")
    if (path / STATE).exists() and (path / INFO).exists():  # anybody's file may be called state.json
        return [_data_file(path, entry) for entry in _json(path / STATE, "_data_files")]
    return None


def _json(file: Location, key: str) -> list[object]:
    """A list in a JSON file of Hugging Face's."""
    try:
        found = file.read_json()[key]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFileError(f"the file {file} is not as Hugging Face's save_to_disk writes it: {error!r}") from None
    if not isinstance(found, list) or not found:
        raise BadFileError(f"the file {file} names no files: {key} is {found!r}")
    return found


def _data_file(folder: Location, entry: object) -> FileInfo:
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.endswith(ARROW) or "/" in name or "\\" in name or "\0" in name:
        raise BadFileError(f"the file {folder / STATE} names {name!r}, which is no Arrow file in that folder")
    place = folder / name
    if not place.exists():
        raise InputError(f"the file {place} is missing, which {folder / STATE} names")
    return place.info()
