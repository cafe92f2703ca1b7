"""The dedups of a run by all of its embedders: one after the other, so that what goes by one is not compared again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.dedup.base.new_rows import Embeddings, LeftOut
from semdedup.dedup.input.files import find_files
from semdedup.dedup.names import IDENTIFY, find_table
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.threshold.recommended import chosen_eps
from semdedup.errors import ParameterError
from semdedup.run_options import Eps
from semdedup.runs.owner import owned
from semdedup.runs.places import DEDUPS, OF_EMBEDDER, results_by_embedder
from semdedup.runs.record import Record
from semdedup.settings.choices import DropWhen
from semdedup.shards.embedders import EMBEDDERS, Embedders
from semdedup.shards.options import DUPLICATE_WHEN
from semdedup.storage.location import Location
from semdedup.updates import Dedups, clear_dedups
from semdedup.video.result import SplitResult
from semdedup.video.steps.embed.providers import EmbedderSpec

RUN_REMOVAL = "witness"
"""The removal rule of the whole way, where none is given: each clip that goes is like one in the dataset."""


class RunDedups:
    """The dedups of each embedder of a run, below its root; of several each in a folder of its own.

    Args:
        root: of the run.
        clips: output of its split.
        embedders: in the order in which they are made.
        given: parameters of the dedup, as the user gave them.
        eps: the threshold of all, or of some by their names; of others that on record, else what they recommend.
        duplicate_when: when a clip is a near-duplicate by several; None: as on record, else the default.
        shared: ``clear_output`` and others that all workflows take.
    """

    def __init__(
        self,
        root: Location,
        clips: Location,
        embedders: Sequence[EmbedderSpec],
        given: Mapping[str, Any],
        eps: Eps | None,
        duplicate_when: DropWhen | None,
        shared: Mapping[str, Any],
    ) -> None:
        self.root, self._shared, self._given = root, shared, given
        self._embeddings = {spec.name: clips / spec.folder for spec in embedders}
        self._given_eps = dict(eps) if isinstance(eps, Mapping) else dict.fromkeys(self._embeddings, eps)
        self._duplicate_when = duplicate_when

    @property
    def names(self) -> list[str]:
        """Names of the embedders."""
        return list(self._embeddings)

    def place(self, name: str) -> Location:
        """The folder that holds the dedups of an embedder: the root where there is one."""
        return self.root if len(self._embeddings) == 1 else self.root / f"{OF_EMBEDDER}{name}"

    @property
    def folders(self) -> dict[str, list[Location]]:
        """The folders of the dedups of each embedder, the oldest first; a last one may not be complete."""
        return {name: DEDUPS.below(self.place(name)) for name in self._embeddings}

    @property
    def n_made(self) -> int:
        """How many dedups there are."""
        return sum(map(len, self.folders.values()))

    @property
    def duplicate_when(self) -> DropWhen:
        """When a clip is a near-duplicate by several embedders: as it was given, or is on record, or the default."""
        if self._duplicate_when is not None:
            return self._duplicate_when
        entry = {} if self._shared["clear_output"] else Record(self._first_folder).steps.get(EMBEDDERS, {})
        when: DropWhen = entry.get("parameters", {}).get("duplicate_when", DUPLICATE_WHEN.default)
        return when

    def check(self) -> None:
        """Check the parameters. Raises `ParameterError`."""
        if others := self._given_eps.keys() - self._embeddings.keys():
            raise ParameterError(
                f"eps names {', '.join(sorted(others))}, and the embedders of this run are {', '.join(self.names)}"
            )
        for name in self._embeddings:
            self._of(name, fresh=True).check(self._given_eps.get(name) or 0.0)

    def check_record(self) -> None:
        """Refuse another `duplicate_when` than that on record, before any work. Raises `OutputConflictError`."""
        if len(self._embeddings) > 1 and not self._shared["clear_output"]:
            Record(self._first_folder).check(EMBEDDERS, self._noted.to_json())

    def run(
        self,
        client: distributed.Client,
        cluster: ClusterOptions | None,
        reporter: Reporter,
        split: SplitResult,
        left_out: Sequence[LeftOut],
        one_by_one: bool,
    ) -> dict[str, DedupResult]:
        """Make the dedups of each embedder, or complete them; what is complete is left alone.

        Args:
            split: what was embedded.
            left_out: clips that go before they are compared.
            one_by_one: whether a near-duplicate by one embedder goes in any case, so that no other compares it.
        """
        if self._shared["clear_output"]:
            self._clear_others()
        is_partial = any(count != split.embedded for count in split.counts.by_folder.values())
        found, gone = {}, list(left_out)
        for name in self._embeddings:
            dedups = self._of(name, left_out=gone, is_partial=is_partial)
            eps, why = self._eps(name, dedups)
            by = f" by {name}" * (len(self._embeddings) > 1)
            reporter.part(f"3 of 5: dedup{by} at eps {eps:g} ({why})")
            found[name] = dedups.run(client, cluster, reporter, eps)
            if one_by_one and self.duplicate_when == "either":
                gone += _duplicates_of(dedups)
        if len(found) > 1:
            self._note()
        return found

    def planned(self) -> Iterator[tuple[str, list[Location]]]:
        """Of each embedder the folder that holds its dedups, as a name below the root, and the dedups there."""
        for name, folders in self.folders.items():
            yield "" if self.place(name) is self.root else f"{self.place(name).name}/", folders

    @property
    def _noted(self) -> Embedders:
        return Embedders(tuple(self._embeddings), self.duplicate_when)

    @property
    def _first_folder(self) -> Location:
        return self.place(self.names[0]) / DEDUPS.first

    def _of(self, name: str, fresh: bool = False, left_out: Sequence[LeftOut] = (), is_partial: bool = False) -> Dedups:
        """The dedups of an embedder; what is not given is as in the first one, unless all are to be `fresh`."""
        others = tuple(folder for other, folder in self._embeddings.items() if other != name)
        embeddings = Embeddings(self._embeddings[name], others)
        dedups = Dedups(self.place(name), embeddings, self._given, self._shared, left_out, is_partial)
        anew = fresh or self._shared["clear_output"]
        recorded = None if anew else dedups.recorded("removal")
        return dedups.with_default("removal", RUN_REMOVAL if recorded is None else recorded).ranked(anew)

    def _eps(self, name: str, dedups: Dedups) -> tuple[float, str]:
        recorded = None if self._shared["clear_output"] else dedups.recorded("eps")
        eps = self._given_eps.get(name)
        if eps is None and recorded is not None:
            return recorded, f"as in {dedups.folder(1)}"
        folder = self._embeddings[name]
        return chosen_eps(eps, [folder.at(file.url) for file in find_files([folder], "parquet")])

    def _note(self) -> None:
        """Put on record which embedders there are, for runs that follow and for those who read the results."""
        parameters = self._noted.to_json()
        for name in self._embeddings:
            folder = self.place(name) / DEDUPS.first
            if (Record(folder).committed(EMBEDDERS) or {}).get("parameters") != parameters:
                with owned(folder, take_over=self._shared["take_over"]) as ownership:
                    entry = {"status": "committed", "parameters": parameters, "facts": {}, "files": {}}
                    Record(folder, ownership.token).update(EMBEDDERS, **entry)

    def _clear_others(self) -> None:
        """Delete the dedups of runs with other embedders there."""
        places = [self.root, *results_by_embedder(self.root).values()]
        ours = {self.place(name).url for name in self._embeddings}
        for place in places:
            if place.url not in ours:
                clear_dedups(place, DEDUPS.below(place), take_over=self._shared["take_over"])
                place.remove_if_empty()


def _duplicates_of(dedups: Dedups) -> Iterator[LeftOut]:
    """The near-duplicates of all dedups of an embedder."""
    for number, folder in enumerate(dedups.folders):
        place = find_table(folder, "duplicates")
        files = [file for file in place.files() if file.url.endswith(".parquet")]
        facts = (Record(folder).committed(IDENTIFY) or {}).get("facts", {})
        yield LeftOut.of(facts.get("duplicates", 0), files, folder, is_first=number == 0)
