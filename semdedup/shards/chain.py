"""Which clips are dropped by a result and its updates: each by its own tables, threshold and removal rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semdedup.dedup.base.chain import Link, chain_of
from semdedup.dedup.base.folders import results_in
from semdedup.dedup.names import KMEANS
from semdedup.errors import ParameterError
from semdedup.runs.identity import fingerprint
from semdedup.runs.lookup import known_files
from semdedup.runs.record import Record
from semdedup.shards.drops import Drops, find_drops, roots_of
from semdedup.storage.location import FileInfo, Location


@dataclass(frozen=True)
class DropChain:
    """What is dropped by each result of a chain, the oldest first; mostly there is one.

    Attributes:
        links: tables of scores, or of ids to drop.
        withdrawn: for each of these, the table of the ids that it withdrew from those before it, if there is one.
    """

    links: tuple[Drops, ...]
    withdrawn: tuple[tuple[FileInfo, ...], ...]

    @property
    def last(self) -> Drops:
        """The newest; its threshold and rule are told as those of all."""
        return self.links[-1]

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return any(link.scored for link in self.links)

    @property
    def files(self) -> list[FileInfo]:
        """All tables."""
        tables = [file for link in self.links for file in (*link.files, *link.ids)]
        return tables + [file for files in self.withdrawn for file in files]

    @property
    def sources(self) -> list[Location]:
        """The folders of the results."""
        return [link.source for link in self.links]

    def identities(self) -> list[str]:
        """What identifies the tables of each result, wherever it is."""
        return [
            str(fingerprint([*link.files, *link.ids, *gone], known_files([link.source]))["digest"])
            for link, gone in zip(self.links, self.withdrawn, strict=True)
        ]

    def after(self, number: int) -> DropChain:
        """Without the first so many results."""
        return DropChain(self.links[number:], self.withdrawn[number:])

    def __str__(self) -> str:
        return ", ".join(map(str, self.sources))


def find_chain(path: Location, eps: float | None, removal: str | None = None) -> DropChain:
    """Find what is dropped by a result, and by those that it was compared with; or by all results of a run.

    Raises:
        InputError: the path holds neither scores nor ids to drop; or a result of the chain is not as it was.
        ParameterError: as `find_drops`; or several results would have to be looked at by another rule or threshold.
    """
    roots, links = _links(path)
    drops = tuple(find_drops(root, eps, removal) for root in roots)
    unknown = [link for link in drops if link.scored and not link.by_scores and not link.ids]
    if len(drops) > 1 and unknown:
        raise ParameterError(
            f"{path} holds {len(drops)} results, and what goes at eps {unknown[0].eps:g} by the removal rule "
            f"{unknown[0].removal!r} is not on record. Write it first: semdedup extract {path} --eps …, and give the "
            "folder that this writes."
        )
    gone = tuple(tuple(link.withdrawn) for link in links) if links else ((),) * len(drops)
    return DropChain(drops, gone)


def _links(path: Location) -> tuple[Sequence[Location], Sequence[Link]]:
    """The results to read for a path, and what their records tell of them as links of a chain, if they are one."""
    found = results_in(path)
    for root in roots_of(found[-1]):
        if Record(root).every_step.get(KMEANS, {}).get("facts", {}).get("bases"):
            links = chain_of(root)
            return [link.root for link in links], links
    return found, ()
