"""Which clips are dropped by a result and its updates: each by its own tables, threshold and removal rule."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from semdedup.dedup.base.chain import Link, chain_of
from semdedup.dedup.base.folders import results_in
from semdedup.dedup.names import KMEANS
from semdedup.errors import ParameterError
from semdedup.overlaps.folders import drop_when_of
from semdedup.runs.identity import fingerprint
from semdedup.runs.lookup import known_files
from semdedup.runs.places import around, results_by_embedder
from semdedup.runs.record import Record
from semdedup.settings.choices import DropWhen
from semdedup.shards.drops import Drops, find_drops, roots_of
from semdedup.shards.embedders import noted_embedders
from semdedup.shards.options import DROP_WHEN, DUPLICATE_WHEN
from semdedup.shards.overlaps import OverlapDrops, find_overlap_drops
from semdedup.storage.location import FileInfo, Location


@dataclass(frozen=True)
class DropChain:
    """What is dropped by each result of a chain, the oldest first; mostly there is one.

    A run with several embedders has a chain of each: their links stand one after the other.

    Attributes:
        links: tables of scores, or of ids to drop.
        withdrawn: for each of these, the table of the ids that it withdrew from those before it, if there is one.
        overlaps: tables of clips that go by overlap, the oldest first.
        drop_when: whether a clip goes by either, or by both of scores and overlap.
        duplicate_when: whether a clip is a near-duplicate where it is so by either, or by both of several embedders.
    """

    links: tuple[Drops, ...] = ()
    withdrawn: tuple[tuple[FileInfo, ...], ...] = ()
    overlaps: tuple[OverlapDrops, ...] = ()
    drop_when: DropWhen = DROP_WHEN.default
    duplicate_when: DropWhen = DUPLICATE_WHEN.default

    @property
    def embedders(self) -> tuple[str, ...]:
        """Names of the embedders, each with a chain of its own; an empty one where there is one chain."""
        return tuple(dict.fromkeys(link.embedder for link in self.links))

    @property
    def newest(self) -> dict[str, Drops]:
        """The newest link of each embedder."""
        return {link.embedder: link for link in self.links}

    @property
    def last(self) -> Drops | None:
        """The newest; its threshold and rule are told as those of all. None where there are overlaps alone, or several
        embedders."""
        return self.links[-1] if len(self.embedders) == 1 else None

    @property
    def eps(self) -> float | None:
        """The threshold; None where none is known."""
        return None if self.last is None else self.last.eps

    @property
    def removal(self) -> str | None:
        """The removal rule; None where none is known."""
        return None if self.last is None else self.last.removal

    @property
    def why(self) -> str | None:
        """Where the threshold comes from, in words."""
        return None if self.last is None else self.last.why

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return any(link.scored for link in self.links)

    @property
    def files(self) -> list[FileInfo]:
        """All tables."""
        tables = [file for link in self.links for file in (*link.files, *link.ids)]
        tables += [file for files in self.withdrawn for file in files]
        return tables + [file for found in self.overlaps for file in found.files]

    @property
    def sources(self) -> list[Location]:
        """The folders of the results."""
        return [link.source for link in self.links]

    @property
    def folders(self) -> list[Location]:
        """All folders that the tables are in."""
        return self.sources + [found.source for found in self.overlaps]

    def identities(self) -> list[str]:
        """What identifies the tables of each result, wherever it is; of several embedders with the name in front."""
        return [
            f"{link.embedder} {_identity([*link.files, *link.ids, *gone], link.source)}".lstrip()
            for link, gone in zip(self.links, self.withdrawn, strict=True)
        ]

    def overlap_identities(self) -> list[str]:
        """The same of the tables of clips that go by overlap."""
        return [_identity(found.files, found.source) for found in self.overlaps]

    def after(self, known: Collection[str]) -> DropChain:
        """Without the results of these `identities`. All overlaps stay: clips of old videos may be new."""
        new = [i for i, identity in enumerate(self.identities()) if identity not in known]
        links, withdrawn = tuple(self.links[i] for i in new), tuple(self.withdrawn[i] for i in new)
        return replace(self, links=links, withdrawn=withdrawn)

    def __str__(self) -> str:
        return ", ".join(map(str, self.sources))


def _identity(files: Sequence[FileInfo], source: Location) -> str:
    return str(fingerprint(files, known_files([source]))["digest"])


def find_all_drops(
    dedup: Location | None,
    eps: float | None,
    removal: str | None = None,
    *,
    overlaps: Location | None = None,
    clips: Location | None = None,
    drop_when: DropWhen | None = None,
    duplicate_when: DropWhen | None = None,
) -> DropChain | None:
    """What is dropped by what a user has named: by the result of a dedup, or of `find_overlaps`, or both.

    Of the root of a run, and of a dedup or clips below it, the overlaps of that run are found where none are named; and
    whether it takes both that a clip goes, or is a near-duplicate by several embedders, unless that is given.

    Raises:
        InputError, ParameterError: as `find_chain` and `find_overlap_drops`; or it takes both, and one is not there.
    """
    found, recorded = DropChain() if dedup is None else find_chain(dedup, eps, removal), None
    if dedup is not None:
        roots = (root for path in (dedup, clips) if path is not None for root in around(path))
        run, recorded = next(((root, when) for root in roots if (when := drop_when_of(root))), (None, None))
        overlaps = overlaps or run
    if overlaps is not None:
        found = replace(found, overlaps=find_overlap_drops(overlaps))
    when = drop_when or recorded or DROP_WHEN.default
    if when == "both" and not (found.links and found.overlaps):
        name = "input_overlaps_path" if found.links else "input_semantic_dedup_path"
        flag = "--" + name.replace("_", "-")
        raise ParameterError(f"drop_when is 'both', and one of them is not there: give {name} ({flag})")
    if duplicate_when is not None and len(found.embedders) > 1:
        found = replace(found, duplicate_when=duplicate_when)
    return replace(found, drop_when=when) if found.links or found.overlaps else None


def find_chain(path: Location, eps: float | None, removal: str | None = None) -> DropChain:
    """Find what is dropped by a result, and by those that it was compared with; or by all results of a run.

    Raises:
        InputError: the path holds neither scores nor ids to drop; or a result of the chain is not as it was; or not all
            embedders of a run have results.
        ParameterError: as `find_drops`; or several results would have to be looked at by another rule or threshold.
    """
    several = results_by_embedder(path)
    note = noted_embedders(path, several)
    drops: list[Drops] = []
    gone: list[tuple[FileInfo, ...]] = []
    for name, folder in (several or {"": path}).items():
        roots, links = _links(folder)
        drops += [replace(find_drops(root, eps, removal), embedder=name) for root in roots]
        gone += [tuple(link.withdrawn) for link in links] if links else [()] * len(roots)
    unknown = [link for link in drops if link.scored and not link.by_scores and not link.ids]
    if len(drops) > 1 and unknown:
        raise ParameterError(
            f"{path} holds {len(drops)} results, and what goes at eps {unknown[0].eps:g} by the removal rule "
            f"{unknown[0].removal!r} is not on record. Write it first: semdedup extract {path} --eps …, and give the "
            "folder that this writes."
        )
    when = DUPLICATE_WHEN.default if note is None else note.duplicate_when
    return DropChain(tuple(drops), tuple(gone), duplicate_when=when)


def _links(path: Location) -> tuple[Sequence[Location], Sequence[Link]]:
    """The results to read for a path, and what their records tell of them as links of a chain, if they are one."""
    found = results_in(path)
    for root in roots_of(found[-1]):
        if Record(root).every_step.get(KMEANS, {}).get("facts", {}).get("bases"):
            links = chain_of(root)
            return [link.root for link in links], links
    return found, ()
