"""What to read: which files there are in folders, patterns and lists of them, and what is passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

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
from semdedup.dedup.input.own import is_track, own_files
from semdedup.dedup.input.passed_over import (
    NO_FILES,
    NOT_THIS,
    OUTPUT,
    TOO_MANY,
    TWICE,
    WORDS,
    PassedOver,
    names_of,
)
from semdedup.dedup.input.rules import PART, Rules, below, ending_in, is_below, is_data, why_by_name
from semdedup.display import format_passed_over
from semdedup.errors import InputError
from semdedup.runs.identity import common_folder
from semdedup.runs.lookup import check_recorded
from semdedup.runs.places import find_part
from semdedup.storage.digests import are_among, as_digests, digest, digests, repeated
from semdedup.storage.file_list import FileList, FileListBuilder
from semdedup.storage.listing import MAGIC, Listing, pattern_of, split_pattern
from semdedup.storage.location import FileInfo, Location


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
    passed_over = PassedOver()
    looked = [_look(path, filetype, outputs, recorded) for path in paths]
    found = FileList.joined(each.wanted for each in looked)
    if not found:
        raise InputError(
            f"no {filetype} files in {', '.join(map(str, paths))} outside of the output folder; take another output"
        )
    places = looked[0].places if len(looked) == 1 else np.concatenate([each.places for each in looked])
    again, first = repeated(places)
    for url, other in zip(found.take(again).urls(), found.take(first).urls(), strict=True):
        if url != other:
            passed_over.add(url, TWICE, ending_in(url))
    for each in looked:
        passed_over.add_all(each.passed_over)
    is_first = np.ones(len(found), dtype=bool)
    is_first[again] = False
    files = found.filter(is_first).ordered()
    told = {}
    if passed_over:
        asked_for = np.concatenate([digests(path.url for path in paths), digests(files.urls())])
        told = passed_over.told(asked_for, places)
    return FoundFiles(files, told, common_folder([f"{each.top.url.rstrip('/')}/" for each in looked]))


def find_embeddings(
    paths: Sequence[Location], outputs: Sequence[Location] = (), filetype: str = "parquet"
) -> FoundFiles:
    """The files of embeddings: of files, folders and patterns, of outputs of `split`, and of the root of a run.

    Raises:
        InputError: no such path, no files, or embeddings of several embedders.
    """
    return find_files(embeddings_of(paths), filetype, outputs, recorded=True)


def embeddings_of(paths: Sequence[Location]) -> list[Location]:
    """The folders of embeddings that paths mean, see `find_part`."""
    return [place for path in paths for place in find_part(path, "embeddings")]


class _Place(NamedTuple):
    """What a path means: its files, the folder that they lie below, and the parts of the pattern where it is one."""

    listing: Listing
    top: Location
    named: Sequence[str] = ()


class _Looked(NamedTuple):
    """The files of a path that are wanted, with `digests` of their real places; and what is passed over.

    `top` is the folder that is given: of a pattern the one that it is looked for in, of a file the one around it.
    """

    top: Location
    wanted: FileList
    places: np.ndarray
    passed_over: PassedOver


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
    files = dataset_files(path) if is_dir else None
    place = _place_of(path, is_dir) if files is None else None
    if place is None:
        files, top = ([_named_file(path, filetype)], path.parent) if files is None else (files, path)
        return _Looked(top, FileList.of(files), digests(path.real_url(file.url) for file in files), PassedOver())
    listing, top, named = place
    around = _around("/".join([top.real_url(top.url).rstrip("/"), *named]), outputs)
    if recorded and not named:
        _check_recorded(place, filetype, around)
    results = own_files(top, listing.files, named)
    looked = _sorted_out(listing, Rules(top, filetype, named, around, results, _datasets_in(place)))
    if not looked.wanted and OUTPUT not in looked.passed_over.reasons:
        _refuse_empty(path, filetype, looked.passed_over)
    return looked


def _sorted_out(listing: Listing, rules: Rules) -> _Looked:
    """Which files of a listing are read."""
    top, wanted, places, passed_over = rules.top, FileListBuilder(), bytearray(), PassedOver()
    unknown: dict[str, FileInfo] = {}
    again: list[tuple[str, str]] = []  # other names of these, and real places
    for file in (file for files in rules.datasets.values() for file in files):
        wanted.add_file(file)
        places += digest(top.real_url(file.url))
    for batch in listing.files.batches:
        part = FileList([batch])
        plain = rules.are_plain(batch, listing) & ~listing.are_links(batch)
        wanted.add_list(part.filter(plain))
        places += digests(listing.real_places(part.filter(plain))).tobytes()
        others = part.filter(~plain)
        for real, file in zip(listing.real_places(others), others, strict=True):
            why, ending, place = rules.why(file, real)
            if why == "":
                wanted.add_file(file)
                places += digest(real)
            elif why is None and real in unknown:
                again.append((file.url, real))
            elif why is None and len(unknown) <= MOST_LOOKED_INTO:
                unknown[real] = file
            elif why != PART:
                passed_over.add(file.url, why or TOO_MANY, ending, place)
    reasons = _look_into(top, rules.filetype, unknown)
    are_there = _are_among(digests(reasons), as_digests(places))
    for (real, why), is_there in zip(reasons.items(), are_there, strict=True):
        if why:
            passed_over.add(unknown[real].url, why, ending_in(unknown[real].url), real)
        elif not is_there:
            wanted.add_file(unknown[real])
            places += digest(real)
    found = as_digests(places)
    twice = [url for url in listing.links if is_data(below(top, url), rules.named)]
    is_read = _are_among(digests(real for _, real in again), found)
    for url in [*twice, *(url for (url, _), is_too in zip(again, is_read, strict=True) if is_too)]:
        passed_over.add(url, TWICE, ending_in(url))
    return _Looked(top, wanted.finish(), found, passed_over)


def _are_among(places: np.ndarray, others: np.ndarray) -> list[bool]:
    """Which places are among others; these are put in order only where there are any to look for."""
    found: list[bool] = are_among(places, np.sort(others)).tolist() if len(places) else []
    return found


def _datasets_in(place: _Place) -> dict[str, list[FileInfo]]:
    """The folders of data sets, each with the files that stand for it where the pattern names it."""
    listing, top, named = place
    pattern = pattern_of("/".join(named)) if named else None
    folders = dataset_folders(listing.files)
    meant = {folder for folder in folders if pattern is not None and pattern.match(below(top, folder))}
    return {folder: dataset_files(top.at(folder)) or [] if folder in meant else [] for folder in folders}


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
        name = below(top, url)
        return why_by_name(name, filetype) == "" and not is_track(name) and not is_below(top.real_url(url), around)

    check_recorded(top, listing.files, is_wanted)


def _around(path: str, outputs: Sequence[Location]) -> list[str]:
    """The outputs but for those that the path lies in, aside of their results; by their real places."""
    places = [out.real_url(out.url).rstrip("/") for out in outputs]
    return [out for out in places if not is_below(path, [out]) or is_data(path[len(out) :])]


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


def _refuse_empty(path: Location, filetype: str, passed_over: PassedOver) -> NoReturn:
    if passed_over.has_pickles:
        _refuse_pickles(path)
    there = format_passed_over(passed_over.counted())
    held = f"there are {there}" if there else "it is empty"
    endings = " or ".join(EXTENSIONS[filetype])
    named = f" To read a data set name its folder: {min(passed_over.folders, default='')}."
    hint = named if passed_over.folders else _hint(filetype, names_of(passed_over.examples))
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
