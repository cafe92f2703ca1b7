"""The settings of the dedup, each declared here and nowhere else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from semdedup.dedup.kernels.kmeans import auto_n_clusters
from semdedup.dedup.kinds import COLUMN_OR_NONE, ID, INIT, RANKING
from semdedup.dedup.names import OUR_COLUMNS, summary_name
from semdedup.dedup.ranking import KEEP, METRIC, QUALITY, RANDOM_SEED, RANK_BY, RankingStrategy
from semdedup.dedup.threshold.rule import EPS, REMOVAL
from semdedup.errors import ParameterError
from semdedup.settings import Options, setting, settings_of
from semdedup.settings.choices import (
    DistanceMetric,
    EmbeddingEncoding,
    InputFiletype,
    KMeansEngine,
    RemovalRule,
    WhichToKeep,
)
from semdedup.settings.frames import Input
from semdedup.settings.kinds import choice, number, path, paths_or_frame, several, text, truth, whole
from semdedup.settings.shared import NO_PART, SharedOptions
from semdedup.storage.kwargs import READ, WRITE, kwargs_setting
from semdedup.storage.tables import LOW_INFORMATION

CUTS_WORK = "it cuts the work into tasks, of which no answer depends"


@dataclass(frozen=True)
class FieldOptions(Options):
    """Which columns hold ids and embeddings."""

    id_field: str | None = setting(
        "id",
        COLUMN_OR_NONE,
        "Column of the ids. Where there is none (None; '' as a flag), ids are made of file and row: a.parquet:17.",
    )
    embedding_field: str = setting("embedding", text(), "Column of the embeddings.")
    embedding_dim: int | None = setting(None, whole(1), "Expected length; the commonest by default.")
    embedding_encoding: EmbeddingEncoding | None = setting(
        None, choice(*get_args(EmbeddingEncoding)), "What lists of uint16 hold: fp16_bits, the bits of float16."
    )

    def check_together(self) -> None:
        """The two columns differ."""
        if self.id_field == self.embedding_field:
            raise ParameterError(f"id_field and embedding_field are both {self.id_field!r}")


@dataclass(frozen=True)
class InputOptions(FieldOptions):
    """What to read from the input.

    Attributes:
        optional: metadata that no file need have.
    """

    optional: ClassVar[tuple[str, ...]] = ()

    metadata_fields: tuple[str, ...] = setting(
        None, several("be names of columns, a list of text", text()), "Columns to carry along to the clusters."
    )
    input_filetype: InputFiletype = setting("parquet", choice(*get_args(InputFiletype)), "Parquet, or JSON Lines.")
    files_per_partition: int | None = setting(
        None, whole(1), "Most files in one partition; bytes bound it all the same.", unrecorded=CUTS_WORK
    )
    skip_bad_files: bool = setting(False, truth(), "Count and list files that cannot be read, and go on.")

    def check_together(self) -> None:
        """Metadata are columns that nothing else is written to."""
        super().check_together()
        ours = (self.id_field, self.embedding_field)
        names = tuple(name for name in dict.fromkeys(self.metadata_fields or ()) if name not in ours)
        object.__setattr__(self, "metadata_fields", names)
        taken = [name for name in names if name in OUR_COLUMNS]
        if taken:
            raise ParameterError(
                f"metadata_fields names {', '.join(taken)}, which semdedup writes itself; rename it in the input"
            )

    @property
    def columns(self) -> list[str]:
        """Columns to read where a file has them."""
        ids = [] if self.id_field is None else [self.id_field]
        return [*ids, self.embedding_field, *self.carried]

    @property
    def carried(self) -> list[str]:
        """Those of them that are carried along: metadata, and the mark of rows of low information."""
        names = dict.fromkeys([*self.metadata_fields, LOW_INFORMATION])
        return [name for name in names if name not in (self.id_field, self.embedding_field)]

    def ranked(self, strategy: RankingStrategy | None) -> InputOptions:
        """The same for rows that are going to be ranked so."""
        cls = BestCopyOptions if strategy is not None and strategy.is_best else InputOptions
        return cls(**{one.attribute: getattr(self, one.attribute) for one in settings_of(InputOptions)})


@dataclass(frozen=True)
class BestCopyOptions(InputOptions):
    """What to read where the best copy is kept: of the columns that tell it, those that there are."""

    optional: ClassVar[tuple[str, ...]] = QUALITY


@dataclass(frozen=True)
class RankedOptions(InputOptions):
    """What to read of rows that are ranked: of a cluster, `metadata_fields` may be columns that semdedup wrote."""

    def check_together(self) -> None:
        """Only the columns of ids and embeddings must differ, and no other column have their names here."""
        FieldOptions.check_together(self)
        object.__setattr__(self, "metadata_fields", tuple(self.metadata_fields or ()))
        fields = {"id": self.id_field, "embedding": self.embedding_field}
        taken = [ours for ours, name in fields.items() if ours in self.metadata_fields and ours != name]
        if taken:
            raise ParameterError(
                f"rows cannot be ranked by the column {taken[0]!r} where {taken[0]}_field is {fields[taken[0]]!r}; "
                "rename it"
            )


def _random_state() -> Any:
    return setting(42, RANDOM_SEED.kind, "Seed of the sample, of the seeding and of the random rank.")


@dataclass(frozen=True)
class KMeansOptions(Options):
    """How to cluster."""

    n_clusters: int | str = setting(
        "auto", whole(1, word="auto"), "Number of clusters; auto: 1 below 5,000 rows, else √(rows / 2)."
    )
    max_iter: int = setting(300, whole(1), "Most iterations of Lloyd.")
    tol: float = setting(
        1e-4,
        number(0, 1, open_above=True),
        "The fit ends when an iteration lowers the inertia by no more than this share.",
    )
    random_state: int = _random_state()
    init: Any = setting("k-means++", INIT, "How to start: k-means++, random, or an array (k, d) of centroids.")
    n_init: int = setting(1, whole(1), "Fits with different seeds, of which the one of least inertia is taken.")
    oversampling_factor: float = setting(
        2.0,
        number(0, open_below=True),
        "k-means++ draws from 4 times this many sampled rows a centroid, and at least 4,096.",
    )
    max_samples_per_batch: int = setting(
        1 << 15, whole(1), "Most rows in one product of the assignment.", unrecorded=CUTS_WORK
    )
    fit_data_fraction: float | None = setting(
        None,
        number(0, 1, open_below=True),
        "Share of the rows to fit on; 128 rows a centroid and at least 50,000 by default.",
    )
    kmeans_engine: KMeansEngine = setting(
        "auto", choice(*get_args(KMeansEngine)), "cuML's k-means, or this program's own."
    )

    def check_together(self) -> None:
        """Centroids to start from are as many as clusters."""
        if not isinstance(self.init, str) and self.n_clusters not in ("auto", len(self.init)):
            raise ParameterError(
                f"init as an array must have shape (n_clusters, d), {self.n_clusters} rows; got {self.init.shape}"
            )

    def recorded(self) -> dict[str, Any]:
        """As for all options; of centroids, a digest."""
        init = self.init if isinstance(self.init, str) else hashlib.sha256(self.init.tobytes()).hexdigest()
        return {**super().recorded(), "init": init}

    def k_for(self, n_rows: int) -> int:
        """Number of clusters for an input of `n_rows` rows."""
        if not isinstance(self.n_clusters, str):
            return self.n_clusters
        return auto_n_clusters(n_rows) if isinstance(self.init, str) else len(self.init)


@dataclass(frozen=True)
class CompareOptions(Options):
    """How to rank and compare the rows of a cluster."""

    which_to_keep: WhichToKeep | None = setting(
        None,
        KEEP.kind,
        "hard, the default, keeps the row farthest from the centroid, easy or soft the nearest, random any; best the "
        "copy of most pixels, then of the highest bitrate, then the longest.",
    )
    rank_by: tuple[str, ...] | None = setting(
        None,
        RANK_BY,
        "Rank by columns instead, such as height:desc,bitrate:desc; asc: the smallest is best.",
    )
    distance_metric: DistanceMetric | None = setting(
        None,
        METRIC.kind,
        "Distance to the centroid that ranks; cosine by default.",
        aliases=["sim_metric"],
        flags=["--sim-metric", "--distance-metric"],
    )
    ranking_strategy: RankingStrategy | None = setting(None, RANKING, "Another ranking, which wins over which_to_keep.")
    random_state: int = _random_state()
    exact_up_to: float | None = setting(
        None,
        EPS.kind,
        "Find every match up to this eps, in whatever clusters its rows lie. None: matches within clusters only.",
    )
    pairwise_batch_size: int = setting(1024, whole(1), "Most rows compared at a time.", unrecorded=CUTS_WORK)

    def check_together(self) -> None:
        """There is one ranking."""
        others = [name for name in ("which_to_keep", "ranking_strategy") if getattr(self, name) is not None]
        if self.rank_by is not None and others:
            raise ParameterError(
                f"rank_by is {','.join(self.rank_by)!r}, but {others[0]} is given, too; give one of them"
            )

    @property
    def strategy(self) -> RankingStrategy:
        """What these settings mean together."""
        if self.rank_by is not None:
            return RankingStrategy.rank_by(self.rank_by)
        by_distance = RankingStrategy.by_distance(
            self.which_to_keep or KEEP.default, self.distance_metric or "cosine", self.random_state
        )
        return self.ranking_strategy or by_distance

    def recorded(self) -> dict[str, Any]:
        """The ranking, however it was said, and up to which eps matches are found everywhere."""
        return {"ranking": self.strategy.describe(), "exact_up_to": self.exact_up_to}


@dataclass(frozen=True)
class ThresholdOptions(Options):
    """At which eps and by which rule to drop and to count."""

    eps: float | None = setting(None, EPS.kind, f"{EPS.help} None: scores only.")
    removal: RemovalRule = setting(REMOVAL.default, REMOVAL.kind, REMOVAL.help)
    count_at: tuple[float, ...] = setting(
        (),
        several("be numbers in [0, 1)", EPS.kind),
        "Thresholds to count kept and removed rows at, each written to a summary.",
        flags=["--eps-thresholds"],
    )

    def check_together(self) -> None:
        """Every summary has a name of its own, which is the threshold to six digits."""
        named: dict[str, float] = {}
        object.__setattr__(self, "count_at", tuple(dict.fromkeys(self.count_at)))
        for eps in self.count_at:
            other = named.setdefault(summary_name(eps), eps)
            if other != eps or float(f"{eps:.6g}") >= 1:
                both = f"{other!r} and {eps!r}" if other != eps else repr(eps)
                raise ParameterError(f"count_at has {both}, whose summary would be {summary_name(eps)}; leave one out")


@dataclass(frozen=True)
class UpdateOptions(Options):
    """What new rows are compared with beside each other."""

    base: str | None = setting(
        None,
        path(),
        "An earlier result: its kept rows stay, new rows are compared with them in its clusters, and what is not given "
        "is as it was there.",
        unrecorded="the record knows it by its commit",
    )
    withdraw: tuple[str | int, ...] = setting(
        (),
        several("be ids, or a file of them that ends in .txt (one a line) or .parquet (column id)", ID),
        "Ids that leave the kept rows of the base; or a file of them, .txt (one a line) or .parquet (column id).",
        unrecorded="the record knows the ids by a digest",
    )

    def check_together(self) -> None:
        """Rows can be withdrawn from a base only."""
        if self.withdraw and self.base is None:
            raise ParameterError("withdraw names rows of a base; give base, the result that they are to leave")


@dataclass(frozen=True)
class PairsOptions(Options):
    """Which pairs to list, and in which order their rows stand."""

    eps: float = setting(EPS.default, EPS.kind, "List the pairs whose score is at least 1 - eps.")
    ranking_strategy: RankingStrategy | None = setting(
        None, RANKING, "Which row of a pair is a; of a result by the ranks of its rows, else by id, by default."
    )
    max_pairs: int = setting(
        10**9, whole(1), "Stop where there are more pairs than that.", unrecorded="a run that stops writes nothing"
    )


@dataclass(frozen=True)
class EstimateOptions(Options):
    """What to estimate, and from how many rows."""

    eps: tuple[float, ...] = setting(
        (0.05, 0.1, 0.2), several("be numbers in [0, 1)", EPS.kind), "Thresholds to estimate at."
    )
    sample: int = setting(2000, whole(1), "Rows to compare with all rows.")
    scratch_path: str | None = setting(
        None,
        path(),
        "Folder that all workers see, for files in between, which all go; a temporary one of this machine by default.",
        unrecorded=NO_PART,
    )

    def check_together(self) -> None:
        """There is something to estimate."""
        object.__setattr__(self, "eps", tuple(dict.fromkeys(self.eps)))
        if not self.eps:
            raise ParameterError("eps names no threshold; give one or several, such as 0.05 0.1")


@dataclass(frozen=True)
class IOOptions(SharedOptions):
    """Where to read and write, and how."""

    input_path: Input | None = setting(
        None,
        paths_or_frame(),
        "Folder, file or glob of Parquet (or JSON Lines) with ids and embeddings, a Lance data set; or several.",
        flags=["--input-embeddings-path"],
        unrecorded="the record knows the input by its files",
    )
    output_path: str | None = setting(
        None, path(), "Folder for results, local or in a store: s3://, gs://, az://.", unrecorded=NO_PART
    )
    cache_path: str | None = setting(
        None, path(), "Folder for clusters and scores; the output path by default.", unrecorded=NO_PART
    )
    read_kwargs: dict[str, Any] | None = kwargs_setting(READ, "Options for reading Parquet, and storage_options.")
    write_kwargs: dict[str, Any] | None = kwargs_setting(WRITE, "Options for writing Parquet, and storage_options.")
    cache_kwargs: dict[str, Any] | None = kwargs_setting(WRITE, "The same of the cache; write_kwargs by default.")
