"""What a run gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from semdedup.dedup.base.summary import BaseSummary, Withdrawal
from semdedup.dedup.frame_input.held import read_once
from semdedup.dedup.names import IDENTIFY, SCORE, WITHDRAWN, WITHDRAWN_IDS, WITNESSES, WORKFLOW
from semdedup.dedup.results.dropped import Dropped, as_it_came, without_dropped
from semdedup.dedup.results.frames import frame_of_files, frame_or_files
from semdedup.dedup.results.pairs import MOST_PAIRS, Explanation, Group, Id, Pair, table_of
from semdedup.dedup.results.removed import RemovedRows
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.results.tallies import Nearest, bounds_lines
from semdedup.dedup.threshold.rule import REMOVAL, duplicate_mask, exact_eps
from semdedup.display import PASSED_OVER, Displayable, format_passed_over
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.runs.record import Record
from semdedup.settings.choices import RemovalRule
from semdedup.settings.frames import with_frames
from semdedup.storage.location import FileInfo, Location, Paths

if TYPE_CHECKING:
    import dask.dataframe as dd

DUPLICATES = WORKFLOW.duplicates


@dataclass(frozen=True, repr=False)
class DedupResult(Displayable):
    """Counts, times and places of a run.

    Attributes:
        total: rows of the input: kept + duplicates + quarantined.
        duplicates: rows to drop; None where no eps was given.
        kept: rows to keep; None where no eps was given.
        quarantined: rows set aside because they cannot be compared, by reason.
        eps: the threshold, or None.
        seconds: time of each step.
        paths: what was written, by table.
        metadata: ``total_time`` (without ``forced_seconds``, in which ``forced_bytes`` were forced to disk),
            ``kmeans_time``, ``pairwise_time``, ``num_duplicates``, ``step_seconds``, ``removal`` (the rule),
            `base`, `withdrawn`, ``output`` (location of the ids to drop), ``passed_over`` (files of the input that were
            not read: of each reason, how many there are of each ending), ``pairs`` (with `exact_up_to`: how many lie
            in different clusters, what each bound left of them, see `kernels.join.Join`; else None) and facts of the
            clustering.
        skipped_files: files that could not be read and were left out, with the reason.
        scores: the table of scores, to ask more of it. It is streamed; a result holds no rows.
    """

    total: int
    duplicates: int | None
    kept: int | None
    quarantined: Mapping[str, int]
    eps: float | None
    seconds: Mapping[str, float]
    paths: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    skipped_files: tuple[str, ...] = ()
    scores: Scores | None = None

    @property
    def n_quarantined(self) -> int:
        """Rows set aside."""
        return sum(self.quarantined.values())

    @property
    def base(self) -> BaseSummary | None:
        """The earlier result that new rows were compared with, if there was one."""
        return self.metadata.get("base")

    @property
    def withdrawn(self) -> Withdrawal | None:
        """What was withdrawn from it, if anything was."""
        return self.metadata.get("withdrawn")

    def summary(self) -> dict[str, Any]:
        """Counts as plain values."""
        return {
            "total": self.total,
            "eps": self.eps,
            "duplicates": self.duplicates,
            "kept": self.kept,
            "quarantined": self.n_quarantined,
            "duplicate_ratio": None if self.duplicates is None else self.duplicates / max(1, self.total),
        }

    def to_json(self) -> dict[str, Any]:
        """Counts, times and places as JSON values."""
        held = {"n_quarantined": self.n_quarantined, "removal": self.removal, "base": self.base and asdict(self.base)}
        facts = {name: self.metadata.get(name) for name in ("pairs", "passed_over")}
        return {**super().to_json(), **held, **facts, "withdrawn": self.withdrawn and asdict(self.withdrawn)}

    @property
    def removal(self) -> str:
        """The removal rule: ``any``, ``witness`` or ``components``."""
        return str(self.metadata.get("removal", REMOVAL.default))

    def rethreshold(self, eps: float, removal: RemovalRule | None = None) -> DedupResult:
        """The same scores at another eps, or by another rule. Nothing is written; ``semdedup extract`` writes ids.

        Time: one reading of the scores; under ``witness`` also of the clusters in which they do not decide, here.
        """
        rule = self.removal if removal is None else removal
        rows, (duplicates,) = self._removed(rule).count([eps])
        removed = self.metadata.get("removed_at", {}) if rule == self.removal else {}
        gone = ("ids to drop", "witnesses")
        paths = {name: path for name, path in self.paths.items() if name not in gone}
        metadata = {
            **self.metadata,
            "num_duplicates": duplicates,
            "removal": rule,
            "removed_at": {**removed, repr(float(eps)): duplicates},
        }
        kept = rows - duplicates
        return replace(self, eps=float(eps), duplicates=duplicates, kept=kept, paths=paths, metadata=metadata)

    def without_witness(self, eps: float | None = None) -> int:
        """How many of the rows that go match no row that stays; none of them under the rule ``witness``.

        Time: one reading of the scores, and of those clusters in which they do not decide.

        Raises:
            InputError: the clusters are gone.
        """
        return self._removed().without_witness(self._eps(eps))

    def scores_frame(self) -> dd.DataFrame:
        """The scores as a Dask DataFrame of ``id``, ``max_id``, ``cosine_sim_score``, a partition for each table."""
        return frame_of_files(self._scores.source, self._scores.files)

    def duplicates_frame(self) -> dd.DataFrame:
        """The ids to drop as a Dask DataFrame of ``id``, a partition for each file.

        Raises:
            InputError: none were written for this eps and rule.
        """
        files = [file for link in self._links for file in link._written(DUPLICATES)]
        return frame_of_files(self._output, files)

    def witnesses_frame(self) -> dd.DataFrame:
        """The witnesses as a Dask DataFrame of ``id``, ``witness_id``, ``cosine_sim_score``, see `read_witnesses`.

        Raises:
            InputError: the result has none: its rule is ``any``, or nothing was written for this eps.
        """
        files = [file for link in self._links for file in link._written(WITNESSES)]
        return frame_of_files(self._output, files)

    def pairs(self, eps: float | None = None, n: int = 10) -> pd.DataFrame:
        """The n most similar pairs of a row and its most similar better-ranked row, at most eps apart.

        Each row is `id` once at most; `semdedup.find_pairs` lists every pair.

        Returns:
            ``id``, ``max_id``, ``cosine_sim_score`` (float32), most similar first.

        Time: a reading of the scores.
        """
        chosen = self._eps(eps)
        highest = Nearest(MOST_PAIRS.check(n), 1.0)
        self._scores.tally(highest)
        found = table_of(self._scores.pairs(highest.places))
        return found[duplicate_mask(found[SCORE].to_numpy(), chosen)].reset_index(drop=True)

    def show(
        self, n: int = 5, eps: float | None = None, *, borderline: bool = False, clips: Paths | None = None
    ) -> None:
        """Show the pairs of `pairs`, or of `borderline`, with frames of their clips in a notebook.

        See `semdedup.show_pairs`.
        """
        from semdedup import show_pairs  # of the report, which comes after the results

        show_pairs(self, eps, n, borderline=borderline, clips=clips)

    def filter(
        self, frame: Any, *, id_field: str | None = "id", storage_options: Mapping[str, Any] | None = None
    ) -> Any:
        """The same kind of frame without the rows that this result drops; of a path, a Dask DataFrame.

        Rows whose id the result does not know stay.

        Args:
            frame: what `semdedup.deduplicate` takes, or the path of Parquet files.
            id_field: the column of the ids; None takes the positions of the rows, as of a matrix.
            storage_options: for fsspec, of a path.

        Raises:
            InputError: the rule is not ``any``, and no ids were written for this eps.

        Example:
            >>> semdedup.load("out").rethreshold(0.05).filter("embeddings/").to_parquet("kept/")
        """
        found = frame_or_files(frame, id_field, storage_options)
        given = with_frames({"input": found, "id_field": id_field}, "input")
        return as_it_came(found, without_dropped(read_once(given["input"]), given["id_field"], self.dropped()))

    def dropped(self) -> Dropped:
        """The ids to drop, as they stand on disk: of duplicates, and of rows of the base that were withdrawn."""
        files: list[tuple[Location, float | None]] = []
        for link in self._links:
            if link.withdrawn is not None:
                files.append((link._scores.source / WITHDRAWN / WITHDRAWN_IDS, None))
            if link.duplicates == 0:
                continue
            if link._identified() is None and link._removed().by_scores:
                eps = link._eps(None)
                files += [(link._scores.source.at(file.url), eps) for file in link._scores.files]
            else:
                files += [(link._output.at(file.url), None) for file in link._written(DUPLICATES)]
        return Dropped(tuple(files))

    @property
    def _links(self) -> tuple[DedupResult, ...]:
        """The results that this one is made of."""
        return (self,)

    @property
    def _output(self) -> Location:
        """Where the ids to drop stand, if they were written."""
        found = self.metadata.get("output")
        return found if isinstance(found, Location) else self._scores.source

    def _identified(self) -> dict[str, Any] | None:
        """The step on record that wrote ids to drop by this eps and rule; None where that wrote others, or nothing."""
        try:
            found = Record(self._output).committed(IDENTIFY)
        except OutputConflictError:  # damaged, or of something else
            return None
        if found is None:
            return None
        of = found["parameters"]
        return found if (of.get("eps"), of.get("removal", REMOVAL.default)) == (self.eps, self.removal) else None

    def _written(self, folder: str) -> list[FileInfo]:
        """Files of ids to drop, or of witnesses."""
        found = self._identified()
        if found is None or (folder == WITNESSES and self.removal == REMOVAL.default):
            eps = "E" if self.eps is None else exact_eps(self.eps)
            what = "witnesses" if folder == WITNESSES else "ids to drop"
            wish = "--removal witness" if folder == WITNESSES else f"--eps {eps} --removal {self.removal}"
            raise InputError(f"no {what} were written for this result; semdedup extract {wish} writes them")
        folder = found["parameters"].get("folder", "") if folder == DUPLICATES else folder
        prefix = f"{folder}/" if folder else ""
        names = [name for name in found["files"] if name.startswith(prefix) and name.endswith(".parquet")]
        kept = found["parameters"].get("kept")
        others = [f"{other}/" for other in (WITNESSES, kept) if other and other != folder]
        wanted = [name for name in names if not name.startswith(tuple(others))]
        return [(self._output / name).info() for name in sorted(wanted)]

    def explain(self, row_id: Id, eps: float | None = None) -> Explanation:
        """What a row duplicates: the score, the cluster, the row that stays for it, and the metadata of both clips.

        Raises:
            InputError: there is no such row among the scores.
        """
        return self._removed().explain(row_id, self.eps if eps is None else eps)

    def row_id(self, text: str) -> str | int:
        """An id that was given as text, in the type that ids have here.

        Raises:
            ParameterError: ids are numbers, and this is none.
        """
        if pa.types.is_string(self._scores.id_type):
            return text
        try:
            return int(text)
        except ValueError as error:
            raise ParameterError(f"ids are whole numbers here; got {text!r}") from error

    def borderline(self, n: int = 10, eps: float | None = None) -> list[Pair]:
        """The n pairs whose score is nearest to the threshold: look at these to choose eps."""
        return self._removed().borderline(MOST_PAIRS.check(n), self._eps(eps))

    def groups(self, eps: float | None = None) -> Iterator[Group]:
        """The kept rows that have duplicates, each with these, one after the other; by the rule of the result."""
        return self._removed().groups(self._eps(eps))

    def remaining(self, thresholds: Sequence[float] | None = None) -> list[tuple[float, float]]:
        """The curve of what remains by the rule of the result: (eps, fraction of the rows kept) for each threshold.

        By default 0 to 0.5; 0 to 0.2 in steps of 0.01 under other rules than ``any``, for which each threshold costs a
        second look at the clusters; no further than `exact_up_to`, where matches were found up to that.
        """
        removed = self._removed()
        steps = np.linspace(0, 0.5, 101) if removed.by_scores else np.linspace(0, 0.2, 21)
        most = 1.0 if removed.exact_up_to is None else removed.exact_up_to
        usual = [round(float(x), 6) for x in steps if x <= most]
        chosen = usual if thresholds is None else list(thresholds)
        rows, duplicates = removed.count(chosen)
        return [(eps, 1 - count / max(1, rows)) for eps, count in zip(chosen, duplicates, strict=True)]

    def suggest_eps(self, target_fraction: float, removal: RemovalRule | None = None) -> float:
        """The smallest eps at which at most this fraction of the rows remains."""
        return self._removed(removal).suggest_eps(target_fraction)

    def _removed(self, removal: str | None = None) -> RemovedRows:
        return RemovedRows(self._scores, self.removal if removal is None else removal)

    @property
    def _scores(self) -> Scores:
        if self.scores is None:
            raise InputError("this result knows no scores; load one from its folder: semdedup.load(path)")
        return self.scores

    def _eps(self, eps: float | None) -> float:
        chosen = self.eps if eps is None else eps
        if chosen is None:
            raise ParameterError("eps is not given, and this result was made without one")
        return chosen

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""

        def share(count: int) -> str:
            return f"{count:,} ({count / self.total:.1%})" if self.total else f"{count:,}"

        lines = [("rows", f"{self.total:,}")]
        if self.duplicates is not None and self.kept is not None:
            rule = "" if self.removal == REMOVAL.default else f", {self.removal}"
            lines.append((f"duplicates at eps {self.eps:g}{rule}", share(self.duplicates)))
            lines.append(("kept", share(self.kept)))
        else:
            lines.append(("duplicates", "not asked for: no eps, scores only"))
        lines.append(("quarantined", share(self.n_quarantined) if self.quarantined else "0"))
        lines += [(f"  {reason}", f"{count:,}") for reason, count in sorted(self.quarantined.items())]
        if self.skipped_files:
            lines.append(("files skipped", f"{len(self.skipped_files):,}"))
        if self.metadata.get("passed_over"):
            lines.append((PASSED_OVER, format_passed_over(self.metadata["passed_over"])))
        if "clusters" in self.metadata:
            lines.append(("clusters", f"{self.metadata['clusters']:,}"))
        lines += bounds_lines(self.metadata.get("pairs") or {})
        for part in (self.base, self.withdrawn):
            lines += [] if part is None else part.lines()
        lines += [(f"{step} seconds", f"{seconds:.1f}") for step, seconds in self.seconds.items()]
        if self.metadata.get("forced_bytes"):
            forced = f"{self.metadata['forced_bytes']:,} bytes in {self.metadata['forced_seconds']:.1f} s"
            lines.append(("forced to disk", forced))
        lines += [(name, path) for name, path in self.paths.items()]
        return lines
