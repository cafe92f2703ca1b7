"""The base of an update: what it fixes, and what it refuses, on the client before there is any work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import pyarrow as pa
import xxhash

from semdedup.dedup.base.chain import Entry, Link, chain_of, entries_of
from semdedup.dedup.base.withdraw import withdrawn_ids
from semdedup.dedup.input.columns import common_type
from semdedup.dedup.input.ids import id_type
from semdedup.dedup.input.scan import EXAMPLES, expected_length
from semdedup.dedup.names import IDENTIFY, KMEANS, L2_DISTANCE, PAIRWISE
from semdedup.dedup.options import CompareOptions, InputOptions, KMeansOptions, UpdateOptions
from semdedup.dedup.ranking import DISTANCE_COLUMNS, KEEP, RankingStrategy, check_rankable
from semdedup.errors import InputError, ParameterError
from semdedup.settings import settings_of
from semdedup.settings.choices import DistanceMetric, WhichToKeep
from semdedup.storage.location import Location, storage_options_of

OF_THE_FIT = (
    *("n_clusters", "init", "n_init", "max_iter", "tol", "oversampling_factor", "fit_data_fraction"),
    "kmeans_engine",
)
"""Settings that mean nothing where centroids are there already."""


@dataclass(frozen=True)
class Base:
    """An earlier result and its bases, the oldest first, and what was given of the ids to withdraw from them."""

    links: tuple[Link, ...]
    values: tuple[str | int, ...] = ()

    @cached_property
    def id_type(self) -> pa.DataType:
        """Type of its ids."""
        found = id_type(self.last.schema.field("id").type)
        assert found is not None
        return found

    @cached_property
    def withdraw(self) -> pa.Array:
        """The ids that are withdrawn."""
        return withdrawn_ids(self.values, self.last.root, self.id_type)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Base | None:
        """The base that keywords of a stage name, if they do.

        Raises:
            InputError: it is not there, is not complete, or is another than the results made of it were compared with.
            ParameterError: it was made without eps, is the output itself, or does not go with other keywords.
        """
        options = UpdateOptions.of(given)
        if options.base is None:
            return None
        root = Location.of(options.base, storage_options_of(given.get("write_kwargs")))
        links = chain_of(root)
        for link in links:
            link.check_kept()
            if given.get("output_path") and Location.of(given["output_path"]).url in (link.root.url, link.cache.url):
                raise ParameterError(f"base: {link.root} is the output itself; give another output_path")
        kmeans = KMeansOptions.of(given)
        wrong = [name for name in OF_THE_FIT if given.get(name) is not None and _differs(kmeans, name)]
        if wrong:
            raise ParameterError(
                f"{' and '.join(wrong)} cannot be given together with base, whose centroids are taken as they are; "
                "leave it out, or cluster anew without base"
            )
        found = cls(links, options.withdraw)
        if given.get("embedding_dim") not in (None, found.dim):
            raise ParameterError(
                f"embedding_dim is {given['embedding_dim']}, but the embeddings of the base {root} have length "
                f"{found.dim}"
            )
        if found.values:
            found.check()
            found.withdraw  # noqa: B018  (refused here where it cannot be read)
        return found

    @property
    def last(self) -> Link:
        """The result that was named."""
        return self.links[-1]

    @property
    def fit(self) -> Mapping[str, Any]:
        """Facts of the clustering whose centroids all links share."""
        return self.last.facts(KMEANS)

    @property
    def dim(self) -> int:
        """Length of its embeddings."""
        return self.fit["embedding_dim"]

    @property
    def paths(self) -> list[str]:
        """The folders of the chain, the oldest first."""
        return [str(link.root) for link in self.links]

    @property
    def digest(self) -> str:
        """What identifies it for the record of a step: what its links hold, wherever they are."""
        return _digest([link.commit for link in self.links])

    def parameters(self) -> dict[str, Any]:
        """What scores depend on, as JSON values: itself, and the ids that are withdrawn."""
        ids = sorted(map(str, self.withdraw.to_pylist())) if self.values else []
        return {"base": self.digest, **({"withdraw": _digest(ids)} if ids else {})}

    def entries(self, root: Location) -> list[Entry]:
        """How the record of a folder names it."""
        return entries_of(self.links, root)

    def check(self) -> None:
        """Make sure that all its files are there. Raises `InputError` where not, naming the link and the files."""
        for link in self.links:
            link.check()

    def check_rows(self, schema: pa.Schema, embedders: Collection[str], lengths: Collection[int] = ()) -> None:
        """Refuse rows that cannot be compared with its own.

        Args:
            schema: columns of the rows as they are worked on, with ``id``.
            embedders: names of the embedders of their files, as far as these tell.
            lengths: lengths that their embeddings have; empty where it is not known yet.

        Raises:
            InputError: ids of another type, another embedder, or no row of its length.
        """
        ours, theirs = schema.field("id").type, self.id_type
        if ours != theirs:
            raise InputError(f"base: the ids of {self.last.root} are {theirs}, those of the input {ours}")
        known = {name for link in self.links for name in link.facts(KMEANS).get("embedders", ())}
        if known and embedders and known != set(embedders):
            raise InputError(
                f"base: the embeddings of {self.last.root} are of the embedder {' and '.join(sorted(known))}, those of "
                f"the input of {' and '.join(sorted(embedders))}; they cannot be compared. Embed the new videos with "
                "the embedder of the base."
            )
        if lengths and self.dim not in lengths:
            found = ", ".join(map(str, sorted(lengths)))
            raise InputError(
                f"base: the embeddings of {self.last.root} have length {self.dim}, those of the input {found}; "
                "embeddings of different models cannot be compared"
            )

    def expected_length(self, lengths: Mapping[str, Mapping[int, int]]) -> int:
        """Its own length, after checking that rows of each file have it; see `semdedup.dedup.input.scan`."""
        self.check_rows(self.last.schema, (), {length for counts in lengths.values() for length in counts})
        return expected_length(lengths, self.dim, f"that of the base {self.last.root}")

    def refuse_lost(self, ids: Sequence[Any]) -> None:
        """Raise an `InputError` where there are ids to withdraw that are in no cluster of the chain."""
        if ids:
            raise InputError(
                f"withdraw names {len(ids):,} ids that are no rows of the base, such as "
                f"{', '.join(map(repr, sorted(ids)[:EXAMPLES]))}; its chain: {', '.join(self.paths)}"
            )

    def check_ranking(self, strategy: RankingStrategy, schema: pa.Schema | None = None) -> None:
        """Refuse a ranking by columns that the clusters of a link do not have, or of types that do not go together.

        Args:
            strategy: what is to rank.
            schema: columns of the clusters of new rows, where they are known.
        """
        schemas = [] if schema is None else [schema]
        for link in self.links:
            check_rankable(link.schema, strategy, f"the clusters of the base {link.root}")
            schemas.append(link.schema)
        for column in strategy.among({name for other in schemas for name in other.names}):
            kinds = [other.field(column).type for other in schemas if column in other.names]
            together: pa.DataType | None = kinds[0]
            for kind in kinds[1:]:
                together = None if together is None else common_type(together, kind)
            if together is None:
                raise ParameterError(
                    f"the column {column!r}, by which rows are to be ranked, has types in the input and in the base "
                    f"{self.last.root} that do not go together: {', '.join(dict.fromkeys(map(str, kinds)))}"
                )

    def inherit(self, given: Mapping[str, Any], named: Collection[str]) -> dict[str, Any]:
        """The keywords, with what was not `named` as it is on the record of the base.

        That are eps, the removal rule, the ranking, `exact_up_to` and the names of the fields.
        """
        record = {
            **{field: self.last.parameters(KMEANS).get(field) for field in _names_of_fields()},
            **{name: self.last.parameters(PAIRWISE).get(name) for name in ("exact_up_to",)},
            **{name: self.last.parameters(IDENTIFY).get(name) for name in ("eps", "removal")},
        }
        found = {
            name: value
            for name, value in record.items()
            if name in given
            and (name not in named or (given[name] is None and name != "id_field"))
            and (value is not None or name == "id_field")  # where None is said: ids are made of file and row
        }
        ranking = self._ranking(given)
        return {**given, **found, **({} if ranking is None else {"ranking_strategy": ranking})}

    def _ranking(self, given: Mapping[str, Any]) -> RankingStrategy | None:
        """The ranking of the base, with another direction or distance where that was named; None for another."""
        if given.get("ranking_strategy") is not None or given.get("rank_by") is not None:
            return None
        theirs = RankingStrategy.described(self.last.parameters(PAIRWISE)["ranking"])
        by_distance = theirs.columns in [(column,) for column in DISTANCE_COLUMNS.values()]
        keep_named = given.get("which_to_keep") is not None
        metric_named = given.get("distance_metric") is not None or given.get("sim_metric") is not None
        if not keep_named and not metric_named:
            return theirs
        if not by_distance or (keep_named and metric_named):
            return None
        options = CompareOptions.of(given)
        if keep_named:
            metric: DistanceMetric = "l2" if theirs.columns == (L2_DISTANCE,) else "cosine"
            return RankingStrategy.by_distance(options.which_to_keep or KEEP.default, metric, options.random_state)
        keep: WhichToKeep = "easy" if theirs.ascending == (True,) else "hard"
        return RankingStrategy.by_distance(keep, options.distance_metric or "cosine", options.random_state)


def _differs(options: KMeansOptions, name: str) -> bool:
    value, default = getattr(options, name), next(one.default for one in fields(options) if one.name == name)
    return not isinstance(value, type(default)) or bool(value != default)


def _names_of_fields() -> list[str]:
    return [
        one.name for one in settings_of(InputOptions) if one.name in ("id_field", "embedding_field", "metadata_fields")
    ]


def _digest(texts: Sequence[str]) -> str:
    return xxhash.xxh3_128("\0".join(texts).encode(errors="surrogateescape")).hexdigest()
