"""`CrossStage`: two sets of embeddings in, tables of scores out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Unpack

from semdedup.compute.session import Session
from semdedup.dedup.frame_input.held import Columns
from semdedup.dedup.frame_input.source import FrameSource
from semdedup.dedup.input.convert import refuse_converted
from semdedup.dedup.input.facts import Counted, FileFacts, inspect_first
from semdedup.dedup.input.files import embeddings_of, find_embeddings
from semdedup.dedup.input.found import passed_over_of
from semdedup.dedup.leaks.run import compare_sets
from semdedup.dedup.leaks.sets import Embeddings, check_sets
from semdedup.dedup.names import AGAINST, KMEANS, PAIRWISE, SCORES_FILE
from semdedup.dedup.options import FieldOptions, InputOptions, IOOptions
from semdedup.dedup.stage import Stage
from semdedup.errors import OutputConflictError, ParameterError
from semdedup.runs.identity import fingerprint
from semdedup.runs.record import Record
from semdedup.runs.run import Run
from semdedup.settings import Setting, documented, settings_of
from semdedup.settings.choices import EmbeddingEncoding
from semdedup.settings.frames import Frame, Input, with_frames
from semdedup.settings.kinds import paths_or_frame
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import FileInfo, Location, locations_of

AGAINST_PATHS = Setting(paths_or_frame(), None, "The embeddings to compare with.", AGAINST)


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
        against: Input | None = None,
        input_path: Input | None = None,
        output_path: str | None = None,
        id_field: str | None = "id",
        embedding_field: str = "embedding",
        embedding_dim: int | None = None,
        embedding_encoding: EmbeddingEncoding | None = None,
        folder: str = "",
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = with_frames({**locals(), **shared}, "input_path", AGAINST)
        super().__init__(given)
        self.fields, self.against = InputOptions.of(given), AGAINST_PATHS.check(given[AGAINST])

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside B: A, among others."""
        if self.against_frame is None:
            identity: Mapping[str, Any] = fingerprint(self.find_against().files)
        else:
            identity = self.against_frame.identity or {}
        found = {f"{AGAINST}_{name}": value for name, value in identity.items()}
        names = [declared.name for declared in settings_of(FieldOptions)]
        fields = {name: value for name, value in self.fields.recorded().items() if name in names}
        return {**fields, **found}

    def columns(self, frame: Frame) -> Columns:
        """The columns of a frame that it uses."""
        return Columns.of(self.fields, frame)

    @cached_property
    def against_frame(self) -> FrameSource | None:
        """A, if it is a frame."""
        return FrameSource(self.against, self.columns(self.against)) if isinstance(self.against, Frame) else None

    def is_known(self) -> bool:
        """Whether both sets are known before there are workers."""
        return super().is_known() and (self.against_frame is None or self.against_frame.identity is not None)

    def learn(self, session: Session) -> None:
        """Know what only the workers can tell of the sets. A is a parameter, so that it is read before the work."""
        super().learn(session)
        if self.against_frame is not None:
            self.against_frame.learn(session, None)

    def source(self) -> Sequence[Location]:
        """The embeddings of B."""
        return embeddings_of(super().source())

    def find_input(self, sources: Sequence[Location]) -> Sequence[FileInfo]:
        """The files of B."""
        files = find_embeddings(sources, [self.destination().root])
        refuse_converted(files, "leaks")
        return files

    def passed_over(self, files: Sequence[FileInfo]) -> dict[str, Any]:
        """What was passed over of both sets."""
        if self.against_frame is not None:
            return super().passed_over(files)
        of_a = {f"of A {reason}": endings for reason, endings in passed_over_of(self.find_against().files).items()}
        return {**super().passed_over(files), **of_a}

    def find_against(self) -> Embeddings:
        """The files of A, which is no frame."""
        sources = locations_of(self.against, self.io.read_kwargs)
        if not sources:
            raise ParameterError("the set to compare with is not given: name the embeddings of A")
        return Embeddings(self.find_input(sources), sources[0], _names(sources))

    def readable(self) -> list[Location]:
        """Files of both sets."""
        if self.against_frame is not None:
            return super().readable()
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
        with contextlib.ExitStack() as stack:
            if self.against_frame is None:
                a = self.find_against()
            else:
                a = Embeddings(*stack.enter_context(self.against_frame.head()), self.against_frame.frame.name)
            b = self._embeddings(files, source)
            check_sets(self._facts_of_first(a), self._facts_of_first(b), a.name, b.name, self.fields)

    def _facts_of_first(self, found: Embeddings) -> list[FileFacts]:
        first = inspect_first(found.files, found.source, Counted.of(self.fields))
        return [file for file in first if file.n_rows]

    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Compare the sets."""
        b = self._embeddings(files, source)
        if self.against_frame is None:
            return compare_sets(run, self.find_against(), b, self.fields, self.destination())
        folder = self.against_frame.write(run, "frame-a", recorded=False)
        a = Embeddings(find_embeddings([folder]), folder, self.against_frame.frame.name)
        with self.against_frame.naming():
            return compare_sets(run, a, b, self.fields, self.destination())

    def _embeddings(self, files: Sequence[FileInfo], source: Location) -> Embeddings:
        name = _names(self.source() or [source]) if self.frame is None else self.frame.frame.name
        return Embeddings(files, source, name)


def _names(sources: Sequence[Location]) -> str:
    return ", ".join(map(str, sources[:3])) + ", …" * (len(sources) > 3)
