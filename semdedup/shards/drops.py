"""Which clips are dropped: by scores and a threshold, or by a list of ids to drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from semdedup.dedup.input.numbered import SCORES_LIKE, check_score_names
from semdedup.dedup.input.rules import is_data
from semdedup.dedup.names import COMMAND_LINE, IDENTIFY, WORKFLOW, find_table
from semdedup.dedup.threshold.rule import REMOVAL, check_eps
from semdedup.dedup.threshold.vectors import check_exact, scores_record
from semdedup.errors import InputError, ParameterError
from semdedup.runs.lookup import check_recorded
from semdedup.runs.record import Record
from semdedup.storage.location import FileInfo, Location

DUPLICATE, EMPTY_FILE, FILTER, OVERLAP, WITHDRAWN = "duplicate", "empty_file", "filter", "overlap", "withdrawn"
DROP_REASONS = {
    DUPLICATE: "a near-duplicate of a better-ranked clip",
    EMPTY_FILE: "the file has no bytes",
    FILTER: "what the dataset asks of its clips is not true of it",
    OVERLAP: "a better-ranked video shows it, or its own video earlier",
    WITHDRAWN: "taken back by a later update",
}
"""Why a clip can be left out of the shards, with the words of the dataset's card."""

NEEDED = (
    "a result of semdedup dedup (its root, its folder of scores or of duplicates), or the root of another program's "
    "that has extraction/semdedup_pruning_tables/cluster_0.parquet, …"
)


@dataclass(frozen=True)
class Drops:
    """Tables of scores, or of ids to drop.

    Attributes:
        scored: whether they are scores.
        eps: the threshold; of ids to drop the one that they were extracted at, None where it is not on record.
        removal: the rule; of ids to drop likewise.
        why: where the threshold comes from, in words.
        files: the tables.
        source: their storage.
        ids: tables of ids to drop beside the scores, where they are on record for this eps and a rule that needs more
            than scores.
        embedder: whose result it is, where a run has several; else empty.
    """

    scored: bool
    eps: float | None
    removal: str | None
    why: str
    files: tuple[FileInfo, ...]
    source: Location = field(repr=False)
    ids: tuple[FileInfo, ...] = ()
    embedder: str = ""

    @property
    def by_scores(self) -> bool:
        """Whether a score alone tells that its row goes."""
        return self.scored and self.removal == REMOVAL.default


def find_drops(path: Location, eps: float | None, removal: str | None = None) -> Drops:
    """Find scores below a path, in either layout; else ids to drop. Nothing is ever taken for "nothing to drop".

    Raises:
        InputError: the path holds neither.
        ParameterError: there are scores, but no threshold, neither given nor on record; or a threshold or a rule is
            given that the ids to drop were not extracted by.
    """
    eps = None if eps is None else check_eps(eps)
    extracted, rule = _extracted(path)
    folder = find_table(path, "scores")
    scores = tuple(_known(folder, lambda url: bool(SCORES_LIKE.search(url)) and is_data(url[len(folder.url) :])))
    check_score_names(scores, folder)
    if scores:
        if eps is None and extracted is None:
            raise ParameterError(
                f"{path} holds scores, and no eps is on record there. Give semantic_dedup_epsilon "
                "(--semantic-dedup-epsilon): clips with a score of at least 1 - eps are dropped."
            )
        chosen, why = (extracted, "that of the ids extracted there") if eps is None else (eps, "given")
        removal = removal or rule or REMOVAL.default
        assert chosen is not None
        check_exact(scores_record(path), [chosen])
        there = removal != REMOVAL.default and (chosen, removal) == (extracted, rule)
        return Drops(True, chosen, removal, why, scores, path, tuple(_ids_to_drop(path)) if there else ())
    ids = tuple(_ids_to_drop(path))
    if not ids:
        raise InputError(f"neither scores nor ids to drop in {path}. Give {NEEDED}")
    for name, given, found in (("eps", eps, extracted), ("removal", removal, rule)):
        if given is not None and given != found:
            when = f"at an {name} that is not on record" if found is None else f"at {name} {found}"
            raise ParameterError(
                f"{path} holds no scores, but ids to drop, extracted {when}: they cannot be had for {name} {given}. "
                f"Give the folder that holds the scores, or leave {SPELLED[name]} out."
            )
    return Drops(False, extracted, rule, "that of the ids extracted there", ids, path)


SPELLED = {"eps": "semantic_dedup_epsilon", "removal": "removal"}


def _ids_to_drop(path: Location) -> list[FileInfo]:
    """Files of ids to drop: below ``duplicates``, or in a folder on record as such.

    A folder that just holds Parquet is not taken: elsewhere, such files (``unique_ids``) list what is to be kept.
    """
    folder = find_table(path, "duplicates")
    record = Record(path).committed(IDENTIFY)
    if folder.name != WORKFLOW.duplicates and record is None:
        return []
    deep = folder.name == WORKFLOW.duplicates  # elsewhere, files below may be ids to keep
    files = _known(folder, lambda url: url.endswith(".parquet") and (deep or url.rpartition("/")[0] == folder.url))
    if folder.name == WORKFLOW.duplicates:
        return [file for file in files if is_data(file.url[len(folder.url) :])]
    listed = {name for name in (record or {}).get("files", ()) if "/" not in name}  # below "kept" are ids to keep
    return [file for file in files if file.url[len(folder.url) + 1 :] in listed]


def _known(folder: Location, among: Callable[[str], bool]) -> list[FileInfo]:
    """Files below a folder whose URL is `among` those asked for: those that our record names, else all.

    Raises:
        InputError: files on record are missing or were changed.
    """
    listed = folder.files()
    ours = check_recorded(folder, listed, among)
    return [file for file in listed if (file.url in ours if ours else among(file.url))]


def _extracted(path: Location) -> tuple[float | None, str | None]:
    """The eps and the rule that the ids to drop were extracted by, by the record of the result of a path."""
    for root in roots_of(path):
        record = Record(root).committed(IDENTIFY)
        if record is not None:
            parameters = record["parameters"]
            return float(parameters["eps"]), parameters.get("removal", REMOVAL.default)
    return None, None


def roots_of(path: Location) -> Iterator[Location]:
    """The folders whose record may be that of a path: itself, and around a folder of tables the root of the result."""
    yield path
    for layout in (WORKFLOW, COMMAND_LINE):
        for folder in (layout.scores, layout.duplicates, layout.summaries):
            if folder and path.url.endswith(f"/{folder}"):
                yield path.at(path.url.removesuffix(f"/{folder}"))
