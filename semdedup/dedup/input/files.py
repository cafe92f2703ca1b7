"""What to read: which files there are in folders, patterns and lists of them, and what is passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, NoReturn

from semdedup.dedup.input.datasets import ARROW, dataset_files, dataset_folders
from semdedup.dedup.input.endings import (
    EXTENSIONS,
    MOST_LOOKED_INTO,
    NEVER_JSON,
    PICKLES,
    WHAT_IS_READ,
    conversion,
    ending_of,
    is_other,
    is_regular,
    look_into,
)
from semdedup.dedup.input.found import FoundFiles
from semdedup.dedup.input.own import own_files
from semdedup.display import format_passed_over
from semdedup.errors import InputError
from semdedup.runs.identity import common_folder
from semdedup.runs.lookup import check_recorded
from semdedup.storage.listing import MAGIC, Listing, pattern_of, split_pattern
from semdedup.storage.location import FileInfo, Location

WORDS = {"parquet": "Parquet", "jsonl": "JSON Lines"}
NOT_THIS = {name: f"that are no {words}" for name, words in WORDS.items()}
HIDDEN = "whose names begin with a dot or an underscore"
OF_RESULTS = "of results of semdedup"
OF_DATASETS = "of data sets of Lance or Hugging Face, which are read where they are named"
TWICE = "that stand there twice, by links or other names"
NO_FILES = "that are no regular files, or may not be read"
TOO_MANY = f"whose endings tell nothing, and which are more than {MOST_LOOKED_INTO:,}"
"""Why a file is passed over."""

OUTPUT = "in the output folder"
MARKER = "that mark or check others"
NEVER_TOLD = (OUTPUT, MARKER)
"""What nobody takes for data."""


def find_files(
    paths: Sequence[Location], filetype: str, outputs: Sequence[Location] = (), recorded: bool = False
) -> FoundFiles:
    """List the input: files, folders at any depth, through links as well, and patterns of files and folders.

    A file counts once, whatever names it goes by. A file that is given by its own name is taken whatever that is. In
    folders and patterns these are passed over, and counted:

    - files with other endings than those of the file type. Where an ending says nothing the first bytes tell Parquet.
    - what lies behind a name that begins with ``_`` or ``.``, unless the pattern names it so; but for ``_key=value``.
    - results of semdedup in a folder below the one that is given.
    - data sets of Lance or Hugging Face below the folder; a pattern that their own folders match names them.

    What is below `outputs` is left out, so that a result inside the input folder does not become input; but for what is
    below a path that is given and lies in a part of an output that holds no results (``_input``).

    Args:
        paths: the input.
        filetype: ``parquet`` or ``jsonl``.
        outputs: where the results go.
        recorded: whether files that a record of ours names below a folder must all be there.

    Raises:
        InputError: a path is not there, or there are no files; what cannot be read is named, with how to convert it.
        StorageError: a folder, which is named, cannot be listed.
    """
    found: dict[str, FileInfo] = {}  # by real place
    passed_over: dict[str, PassedOver] = {}  # by URL
    tops: list[str] = []
    for path in paths:
        looked = _look(path, filetype, outputs, recorded)
        tops.append(f"{looked.top.url.rstrip('/')}/")
        for real, file in looked.wanted.items():
            first = found.setdefault(real, file)
            if first.url != file.url:
                passed_over[file.url] = PassedOver(TWICE, _ending(file.url))
        passed_over |= looked.passed_over
    if not found:
        raise InputError(
            f"no {filetype} files in {', '.join(map(str, paths))} outside of the output folder; take another output"
        )
    files = tuple(sorted(found.values(), key=lambda file: file.url))
    asked_for = {path.url for path in paths} | {file.url for file in files}
    told = {
        url: why
        for url, why in passed_over.items()
        if why.reason not in NEVER_TOLD and not {url, why.real} & asked_for and why.real not in found
    }
    return FoundFiles(files, _counted(told), common_folder(tops))


def is_data(relative: str, named: Sequence[str] = ()) -> bool:
    """Whether no part of a relative path begins with ``_`` or ``.``, but for keys of partitions, ``_key=value``.

    Parts of a pattern may be `named` that begin so themselves: what matches them is data.
    """
    named = [part for part in named if part.startswith(("_", "."))]
    return all(
        not part.startswith(("_", "."))
        or part in (".", "..")  # of keys in an object store, in which they mean nothing
        or (part.startswith("_") and "=" in part)
        or any(fnmatchcase(part, pattern) for pattern in named)
        for part in relative.strip("/").split("/")
    )


def why_by_name(relative: str, filetype: str, named: Sequence[str] = ()) -> str | None:
    """By its name, why a file is passed over; empty for one that is read, None where the name does not tell.

    Args:
        relative: its path below what is given.
        filetype: ``parquet`` or ``jsonl``.
        named: parts of the pattern that it matches. An ending that the last one names is wanted.
    """
    name = relative.rpartition("/")[2]
    ending = ending_of(name)
    if not is_data(relative, named):
        return HIDDEN if ending in EXTENSIONS[filetype] else MARKER
    asked_for = MAGIC.split(named[-1])[-1] if named and MAGIC.search(named[-1]) else ""
    if ending in EXTENSIONS[filetype] or (asked_for.startswith(".") and name.endswith(asked_for)):
        return ""
    if ending == ".crc" or not name:  # no name: what marks a folder in an object store
        return MARKER
    return None if filetype == "parquet" and not is_other(ending) else NOT_THIS[filetype]


class PassedOver(NamedTuple):
    """Why a file is passed over, what it is counted by, and the place by which it is read all the same where it is."""

    reason: str
    ending: str
    real: str = ""


class _Place(NamedTuple):
    """What a path means: its files, the folder that they lie below, and the parts of the pattern where it is one."""

    listing: Listing
    top: Location
    named: Sequence[str] = ()


class _Looked(NamedTuple):
    """The files of a path that are wanted, by their real places; and by URL why each other one is not.

    `top` is the folder that is given: of a pattern the one that it is looked for in, of a file the one around it.
    """

    top: Location
    wanted: dict[str, FileInfo]
    passed_over: dict[str, PassedOver]


def _place_of(path: Location, is_dir: bool) -> _Place | None:
    """What a folder or a pattern means; None for a file."""
    if is_dir:
        return _Place(path.walk(), path)
    if path.exists():
        return None
    listing = path.walk_matches() if MAGIC.search(path.url) else Listing()
    if not listing.files:
        _refuse_absent(path)
    fixed, named = split_pattern(path.url)
    return _Place(listing, path.at(fixed), named)


def _look(path: Location, filetype: str, outputs: Sequence[Location], recorded: bool) -> _Looked:
    """Sort the files of a path."""
    is_dir = path.is_dir()
    dataset = dataset_files(path) if is_dir else None
    if dataset is not None:
        return _Looked(path, {path.real_url(file.url): file for file in dataset}, {})
    place = _place_of(path, is_dir)
    if place is None:
        return _Looked(path.parent, {path.real_url(path.url): _named_file(path, filetype)}, {})
    listing, top, named = place
    around = _around("/".join([top.real_url(top.url).rstrip("/"), *named]), outputs)
    if recorded and not named:
        _check_recorded(place, filetype, around)
    results = own_files(top, list(listing.files.urls()), named)
    wanted, passed_over, unknown = dict[str, FileInfo](), dict[str, PassedOver](), dict[str, FileInfo]()
    again: dict[str, str] = {}  # the real place of a file by another name of it
    datasets = _datasets_in(place)
    for file in (file for files in datasets.values() for file in files):
        wanted[top.real_url(file.url)] = file
    for real, file in zip(listing.real_places(), listing.files, strict=True):
        why, ending = why_by_name(_below(top, file.url), filetype, named), _ending(file.url)
        if why != MARKER and _is_below(real, around):
            why = OUTPUT
        elif why == "" and file.url in results.recorded:
            why, ending = OF_RESULTS, f"in {_below(top, results.recorded[file.url])}"
        elif why != MARKER and ending not in EXTENSIONS[filetype] and (folder := _folder_of(file.url, datasets)):
            if datasets[folder]:
                continue
            why, ending, real = OF_DATASETS, f"in {_below(top, folder) or folder}", folder
        elif why == HIDDEN and results.is_around(file.url):
            why = MARKER
        elif why == "" and not file.n_bytes and not is_regular(top.at(file.url)):
            why = NO_FILES
        if why:
            passed_over[file.url] = PassedOver(why, ending, real)
        elif (wanted if why == "" else unknown).setdefault(real, file) is not file:
            again[file.url] = real
    for real, why in _look_into(top, filetype, unknown).items():
        if not why:
            wanted.setdefault(real, unknown[real])
        else:
            passed_over[unknown[real].url] = PassedOver(why, _ending(unknown[real].url), real)
    twice = [url for url in listing.links if is_data(_below(top, url), named)]
    twice += [url for url, real in again.items() if real in wanted]
    passed_over |= {url: PassedOver(TWICE, _ending(url)) for url in twice}
    if not wanted and not any(why.reason == OUTPUT for why in passed_over.values()):
        _refuse_empty(path, filetype, passed_over)
    return _Looked(top, wanted, passed_over)


def _datasets_in(place: _Place) -> dict[str, list[FileInfo]]:
    """The folders of data sets, each with the files that stand for it where the pattern names it."""
    listing, top, named = place
    pattern = pattern_of("/".join(named)) if named else None
    folders = dataset_folders(list(listing.files.urls()))
    meant = {folder for folder in folders if pattern is not None and pattern.match(_below(top, folder))}
    return {folder: dataset_files(top.at(folder)) or [] if folder in meant else [] for folder in folders}


def _folder_of(url: str, folders: Collection[str]) -> str:
    """The innermost of the folders that a file lies below; empty for none."""
    folder = url.rpartition("/")[0]
    while folder and folder not in folders:
        folder = folder.rpartition("/")[0]
    return folder


def _look_into(top: Location, filetype: str, unknown: Mapping[str, FileInfo]) -> dict[str, str]:
    """Why each of the files is passed over whose ending tells nothing, empty for Parquet; by their real places."""
    if len(unknown) > MOST_LOOKED_INTO:
        return dict.fromkeys(unknown, TOO_MANY)
    words = {True: "", False: NOT_THIS[filetype], None: NO_FILES}
    return dict(zip(unknown, (words[found] for found in look_into(top, list(unknown.values()))), strict=True))


def _check_recorded(place: _Place, filetype: str, around: Sequence[str]) -> None:
    """Make sure that the files of a folder that our record names are there as they were written."""
    listing, top, _ = place

    def is_wanted(url: str) -> bool:
        return why_by_name(_below(top, url), filetype) == "" and not _is_below(top.real_url(url), around)

    check_recorded(top, listing.files, is_wanted)


def _below(top: Location, url: str) -> str:
    return url[len(top.url.rstrip("/")) + 1 :]


def _ending(url: str) -> str:
    return ending_of(url.rpartition("/")[2])


def _around(path: str, outputs: Sequence[Location]) -> list[str]:
    """The outputs but for those that the path lies in, aside of their results; by their real places."""
    places = [out.real_url(out.url).rstrip("/") for out in outputs]
    return [out for out in places if not _is_below(path, [out]) or is_data(path[len(out) :])]


def _is_below(real: str, folders: Sequence[str]) -> bool:
    return real.startswith(tuple(f"{folder}/" for folder in folders))


def _counted(passed_over: Mapping[str, PassedOver]) -> dict[str, dict[str, int]]:
    """Of each reason, how many files there are of each ending, by the reason and ending of each file."""
    counts: dict[str, Counter[str]] = {}
    for why in passed_over.values():
        counts.setdefault(why.reason, Counter())[why.ending] += 1
    return {reason: dict(sorted(counts[reason].items())) for reason in sorted(counts)}


def _named_file(path: Location, filetype: str) -> FileInfo:
    """A file that is given by its own name, unless the name says that it cannot be read."""
    file, ending = path.info(), ending_of(path.name)
    if ending in PICKLES:
        _refuse_pickles(path.parent)
    if ending in ARROW:
        return file
    if not is_regular(path):
        raise InputError(f"{path} is no regular file; {WHAT_IS_READ}")
    wrong = is_other(ending) if filetype == "parquet" else ending in NEVER_JSON
    if wrong and look_into(path, [file]) != [filetype == "parquet"]:
        raise InputError(f"{path} is no {WORDS[filetype]}: {WHAT_IS_READ}.{_hint(filetype, [path.name])}")
    return file


def _refuse_empty(path: Location, filetype: str, passed_over: Mapping[str, PassedOver]) -> NoReturn:
    if any(url.endswith(PICKLES) for url in passed_over):
        _refuse_pickles(path)
    there = format_passed_over(_counted(passed_over))
    names = [url.rpartition("/")[2] for url in passed_over]
    held = f"there are {there}" if there else "it is empty"
    endings = " or ".join(EXTENSIONS[filetype])
    datasets = dataset_folders([url for url, why in passed_over.items() if why.reason == OF_DATASETS])
    hint = f" To read a data set name its folder: {datasets[0]}." if datasets else _hint(filetype, names)
    raise InputError(f"no {filetype} files in {path}: {held}; files must end in {endings}.{hint}")


def _hint(filetype: str, names: Sequence[str]) -> str:
    """What to do with files of such names that are not read as this type; empty where there is no advice."""
    other = next(name for name in EXTENSIONS if name != filetype)
    if any(ending_of(name) in EXTENSIONS[other] for name in names):
        return f" For {WORDS[other]} give input_filetype={other!r} (--input-filetype {other})."
    return next(filter(None, map(conversion, names)), "")


def _refuse_pickles(folder: Location) -> NoReturn:
    raise InputError(
        f"{folder} holds pickles, which are never read: loading one runs whatever code is in it. The same embeddings "
        f"stand as Parquet in the folder beside it: {folder.parent / (folder.name + '_parquet')}"
    )


def _refuse_absent(path: Location) -> NoReturn:
    beside = path.parent / (path.name + "_parquet")
    hint = f"; did you mean {beside}?" if not MAGIC.search(path.url) and beside.exists() else ""
    missing = path.missing_container()
    raise InputError(f"no such path: {path}{hint}{': ' * bool(missing)}{missing}")
