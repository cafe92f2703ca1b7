"""`CrossStage`: two sets of embeddings in, tables of scores out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from semdedup.dedup.input.convert import refuse_converted
from semdedup.dedup.input.facts import FileFacts, inspect_first
from semdedup.dedup.leaks.run import compare_sets
from semdedup.dedup.leaks.sets import Embeddings, check_sets, find_embeddings
from semdedup.dedup.names import AGAINST, KMEANS, PAIRWISE, SCORES_FILE
from semdedup.dedup.options import FieldOptions, InputOptions, IOOptions
from semdedup.dedup.stage import Stage
from semdedup.errors import OutputConflictError, ParameterError
from semdedup.runs.identity import fingerprint
from semdedup.runs.record import Record
from semdedup.runs.run import Run
from semdedup.settings import Setting, documented, settings_of
from semdedup.settings.kinds import paths
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import FileInfo, Location, Paths, locations_of

AGAINST_PATHS = Setting(paths(), None, "The embeddings to compare with.", AGAINST)


@documented(IOOptions, FieldOptions)
class CrossStage(Stage):
    """Score each row of a set B against all rows of a set A: tables ``cluster_{k}.parquet``, one a block of B.

    `id` is of B, `max_id` of A. The parameters are those of `find_leaks`; `input_path` is B, `against` is A.

    Example:
        >>> CrossStage(input_path="eval/", against="train/", output_path="out/scores").run()

    Cost: 2·n_A·n_B·d operations; memory of a task as in `compare_span`.
    """

    step = PAIRWISE

    def __init__(
        self,
        against: Paths | None = None,
        input_path: Paths | None = None,
        output_path: str | None = None,
        id_field: str = "id",
        embedding_field: str = "embedding",
        embedding_dim: int | None = None,
        folder: str = "",
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = {**locals(), **shared}
        super().__init__(given)
        self.fields, self.against = InputOptions.of(given), AGAINST_PATHS.check(against)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside B: A, among others."""
        found = {f"{AGAINST}_{name}": value for name, value in fingerprint(self.find_against().files).items()}
        fields = {declared.name: getattr(self.fields, declared.name) for declared in settings_of(FieldOptions)}
        return {**fields, **found}

    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """The files of B."""
        files = find_embeddings(sources, [self.destination().root])
        refuse_converted(files, "leaks")
        return files

    def find_against(self) -> Embeddings:
        """The files of A."""
        sources = locations_of(self.against, self.io.read_kwargs)
        if not sources:
            raise ParameterError("the set to compare with is not given: name the embeddings of A")
        return Embeddings(self.find_input(sources), sources[0], _names(sources))

    def readable(self) -> list[Location]:
        """Files of both sets."""
        a = self.find_against()
        return [*super().readable(), *(a.source.at(file.url) for file in (a.files[0], a.files[-1]))]

    def is_result(self, name: str) -> bool:
        """Whether a file of this name is a table of scores."""
        return bool(SCORES_FILE.search(name))

    def check_destination(self, record: Record) -> None:
        """Refuse a folder that holds a dedup: its clusters and these scores would pass for one result."""
        if KMEANS in record.steps:
            raise OutputConflictError(f"{record.root} holds the result of a dedup; choose another output path")
        super().check_destination(record)

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files of both sets show to be wrong."""
        a, b = self.find_against(), self._embeddings(files, source)
        check_sets(self._facts_of_first(a), self._facts_of_first(b), a.name, b.name, self.fields)

    def _facts_of_first(self, found: Embeddings) -> list[FileFacts]:
        first = inspect_first(found.files, found.source, self.fields.embedding_field)
        return [file for file in first if file.n_rows]

    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Compare the sets."""
        a, b = self.find_against(), self._embeddings(files, source)
        return compare_sets(run, a, b, self.fields, self.destination())

    def _embeddings(self, files: Sequence[FileInfo], source: Location) -> Embeddings:
        return Embeddings(files, source, _names(self.source() or [source]))


def _names(sources: Sequence[Location]) -> str:
    return ", ".join(map(str, sources[:3])) + ", …" * (len(sources) > 3)
