"""The comparison of clusters: from one folder for each cluster to one table of scores for each.

Small clusters are packed into *groups*, one task each. A cluster too large for a task is laid out in rank order as
*tiles*, and each tile is compared with itself and all better-ranked tiles, one task each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import Array, Backend, array_module, backend_module, to_host
from semdedup.compute import Session
from semdedup.dedup.clustering import FILES_CHECKED_FIRST, FILES_PER_INSPECTION, Destination, bytes_per_task
from semdedup.dedup.embeddings import CheckedRows, check_rows, commonest_length, length_counts
from semdedup.dedup.fit import load_array, save_array
from semdedup.dedup.ids import id_type
from semdedup.dedup.inputs import LOW_INFORMATION, FileFacts, InputOptions, check_file_schema, inspect_files
from semdedup.dedup.layout import CLUSTER_FOLDER, QUARANTINE, below, join, temporary_name
from semdedup.dedup.ranking import RankingStrategy, check_rankable, rank_order
from semdedup.dedup.shuffle import faulty_rows
from semdedup.dedup.similarity import best_match, first_occurrences, max_similarity
from semdedup.dedup.tables import ROWS_PER_BATCH, open_parquet, read_table, write_batches, write_table
from semdedup.errors import BadFileError, InputError, IntegrityError
from semdedup.journal import run_journaled
from semdedup.manifest import SCRATCH, Manifest
from semdedup.storage import FileInfo, Location, without_storage_options

STEP = "pairwise"
CLUSTERS_PER_GROUP = 256
SCORE_ROWS_PER_BATCH = 1 << 20


@dataclass(frozen=True)
class Comparison:
    """What every task of the comparison needs to know.

    Attributes:
        clusters: storage of the cluster files.
        target: folder for the tables of scores, until they are committed.
        quarantine: folder for rows that cannot be compared.
        scratch: folder for the tiles of large clusters.
        fields: names of the id and embedding columns.
        strategy: what ranks.
        dim: d.
        batch_size: most rows compared at a time.
        backend: arrays to compute with.
        write_kwargs: options for writing Parquet.
    """

    clusters: Location
    target: Location
    quarantine: Location
    scratch: Location
    fields: InputOptions
    strategy: RankingStrategy
    dim: int
    batch_size: int
    backend: Backend
    write_kwargs: Mapping[str, Any]

    @property
    def light_columns(self) -> list[str]:
        """Columns to read beside the embeddings."""
        return list(dict.fromkeys([self.fields.id_field, *self.strategy.columns, LOW_INFORMATION]))


@dataclass(frozen=True)
class Cluster:
    """One cluster: its number, its files and their rows."""

    label: int
    urls: tuple[str, ...]
    rows: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        """Rows of all its files."""
        return sum(self.rows)


def group_memory(n_rows_group: int, n_rows_largest: int, dim: int, batch_size: int) -> int:
    """Most bytes of embeddings and products that `score_group` holds at a time.

    Clusters of a group are worked on one after the other: the largest as it is read, in rank order, and once more
    without repeated rows where some are equal; and five products of at most 4 MiB, or of one batch of 64 columns.
    """
    del n_rows_group  # the rows of a group bound its work, not its memory
    return 3 * 4 * n_rows_largest * dim + 5 * max(4 << 20, 4 * batch_size * 64)


def find_clusters(files: Sequence[FileInfo], facts: Sequence[FileFacts]) -> list[Cluster]:
    """Sort files by the cluster in their path, ``centroid=K``."""
    rows = {file.url: file.n_rows for file in facts}
    urls: dict[int, list[str]] = defaultdict(list)
    for file in files:
        match = CLUSTER_FOLDER.search(file.url)
        if match and rows.get(file.url):
            urls[int(match[1])].append(file.url)
    return [Cluster(k, tuple(sorted(urls[k])), tuple(rows[url] for url in sorted(urls[k]))) for k in sorted(urls)]


def pack_groups(clusters: Sequence[Cluster], rows_per_task: int) -> tuple[list[tuple[Cluster, ...]], list[Cluster]]:
    """Pack clusters into groups of about equal work, and set those aside that are larger than a task.

    The work of a group is the sum of squares of its clusters; a group holds at most `CLUSTERS_PER_GROUP` clusters and
    `rows_per_task` rows. The heaviest groups come first, so that none of them is left for the end.
    """
    large = [cluster for cluster in clusters if cluster.n_rows > rows_per_task]
    groups: list[tuple[Cluster, ...]] = []
    current: list[Cluster] = []
    held = 0
    for cluster in sorted((c for c in clusters if c.n_rows <= rows_per_task), key=lambda c: (-c.n_rows, c.label)):
        if current and (held + cluster.n_rows > rows_per_task or len(current) == CLUSTERS_PER_GROUP):
            groups.append(tuple(current))
            current, held = [], 0
        current.append(cluster)
        held += cluster.n_rows
    return groups + [tuple(current)] * bool(current), large


def score_schema(ids: pa.DataType) -> pa.Schema:
    """Columns of a table of scores."""
    return pa.schema([("id", ids), ("max_id", ids), ("cosine_sim_score", pa.float32())])


def score_group(task: Comparison, group: tuple[Cluster, ...]) -> dict[str, Any]:
    """Score the clusters of one group; write ``cluster_{k}.parquet`` for each. Memory: see `group_memory`.

    Returns:
        ``rows``, ``quarantined`` by reason, ``files`` and ``quarantine_files``.
    """
    result = _Written()
    for cluster in group:
        table = pa.concat_tables([_cluster_table(task, url) for url in cluster.urls], promote_options="permissive")
        checked = _check(task, table)
        light = table.drop_columns("embedding")
        rows = checked.unit()
        if len(checked.positions) < len(table):
            result.set_aside(task, cluster, table.column("id"), checked)
            light = light.take(pa.array(checked.positions))
        del table, checked
        if not len(light):
            continue
        order = rank_order(light, task.strategy)
        light = light.take(pa.array(order))
        scores = score_rows(backend_module(task.backend).asarray(rows[order]), _low_information(light), task.batch_size)
        result.scored(task, cluster, _score_table(light.column("id"), *map(to_host, scores)))
    return result.facts


def score_rows(rows: Array, low_information: np.ndarray | None, batch_size: int) -> tuple[Array, Array]:
    """Score the rows of one cluster: `max_similarity`, but rows of low information match nothing and nobody.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first.
        low_information: (n,) truth, or None where every row informs.
        batch_size: most rows compared at a time.

    Returns:
        score (n,) float32 and index (n,) int64, of a row without a match 0 and itself.
    """
    if low_information is None or not low_information.any():
        return max_similarity(rows, batch_size)
    informs = np.flatnonzero(~low_information)
    score, index = (to_host(part) for part in max_similarity(rows[array_module(rows).asarray(informs)], batch_size))
    every_score, every_index = np.zeros(len(rows), dtype=np.float32), np.arange(len(rows))
    every_score[informs], every_index[informs] = score, informs[index]
    return every_score, every_index


def _cluster_table(task: Comparison, url: str) -> pa.Table:
    """A cluster file with the columns ``id``, ``embedding`` and those that rank."""
    table = read_table(task.clusters.at(url), [*task.light_columns, task.fields.embedding_field])
    return _renamed(table, task.fields)


def _renamed(table: pa.Table, fields: InputOptions) -> pa.Table:
    names = {fields.id_field: "id", fields.embedding_field: "embedding"}
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    column = table.column("id")
    return table.set_column(table.column_names.index("id"), "id", column.cast(id_type(column.type) or column.type))


def _check(task: Comparison, table: pa.Table) -> CheckedRows:
    return check_rows(table.column("id"), table.column("embedding"), task.dim)


def _low_information(light: pa.Table) -> np.ndarray | None:
    if LOW_INFORMATION not in light.column_names:
        return None
    return light.column(LOW_INFORMATION).fill_null(False).to_numpy().astype(bool)


def _score_table(ids: pa.ChunkedArray, score: np.ndarray, index: np.ndarray) -> pa.Table:
    return pa.table([ids, ids.take(pa.array(index)), pa.array(score)], schema=score_schema(ids.type))


class _Written:
    """What a task wrote, counted as it goes."""

    def __init__(self) -> None:
        self.rows, self.files, self.quarantine_files = 0, list[str](), list[str]()
        self.quarantined: Counter[str] = Counter()

    def scored(self, task: Comparison, cluster: Cluster, table: pa.Table) -> None:
        name = f"cluster_{cluster.label}.parquet"
        write_table(task.target / name, table, task.write_kwargs)
        self.files.append(name)
        self.rows += len(table)

    def set_aside(self, task: Comparison, cluster: Cluster, ids: pa.ChunkedArray, checked: CheckedRows) -> None:
        faulty = faulty_rows(ids, checked.faults, cluster.urls[0].rsplit("/", 1)[0])
        name = f"cluster_{cluster.label}.parquet"
        write_table(task.quarantine / name, faulty)
        self.quarantine_files.append(name)
        self.quarantined.update(faulty.column("reason").to_pylist())

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "files": self.files,
            "quarantined": dict(self.quarantined),
            "quarantine_files": self.quarantine_files,
        }


# A cluster larger than a task: rank its rows by their light columns, lay them out as tiles, compare tile by tile.


@dataclass(frozen=True)
class Tile:
    """Ranks [start, stop) of one large cluster; the tiles of a cluster before it rank better."""

    cluster: Cluster
    number: int
    start: int
    stop: int


def tiles_of(cluster: Cluster, n_ranked: int, rows_per_tile: int) -> list[Tile]:
    """Cut the ranks 0 … n_ranked - 1 of a cluster into tiles."""
    starts = range(0, n_ranked, rows_per_tile)
    return [Tile(cluster, i, start, min(start + rows_per_tile, n_ranked)) for i, start in enumerate(starts)]


def _place(task: Comparison, cluster: Cluster) -> Location:
    return task.scratch / f"cluster_{cluster.label}"


def _batches(file: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return file.iter_batches(batch_size=ROWS_PER_BATCH, columns=list(columns), use_threads=False)


def rank_large_cluster(task: Comparison, cluster: Cluster) -> dict[str, Any]:
    """Rank a large cluster by its light columns, which it holds whole: about 100 bytes a row.

    Writes the ids in rank order, and for each rank the row (in the order of the files) and whether it informs.
    """
    result = _Written()
    tables, faults = [], []
    for url in cluster.urls:
        with open_parquet(task.clusters.at(url)) as file:
            names = [name for name in task.light_columns if name in file.schema_arrow.names]
            for batch in _batches(file, [*names, task.fields.embedding_field]):
                table = _renamed(pa.Table.from_batches([batch]), task.fields)
                faults.append(_check(task, table).faults)
                tables.append(table.drop_columns("embedding"))
    light = pa.concat_tables(tables, promote_options="permissive")
    every_fault = np.concatenate(faults)
    positions = np.flatnonzero(every_fault == 0)
    if len(positions) < len(light):
        result.set_aside(task, cluster, light.column("id"), CheckedRows(np.empty((0, 0)), positions, every_fault))
        light = light.take(pa.array(positions))
    order = rank_order(light, task.strategy)
    light = light.take(pa.array(order))
    low = _low_information(light)
    place = _place(task, cluster)
    write_table(place / "ids.parquet", light.select(["id"]))
    save_array(place / "row_of_rank.npy", positions[order])
    save_array(place / "informs.npy", np.ones(len(order), bool) if low is None else ~low)
    return {**result.facts, "ranked": len(order)}


def lay_out_tile(task: Comparison, tile: Tile) -> dict[str, Any]:
    """Gather the rows of one tile, in rank order and normalised, reading the cluster in batches.

    Memory: the tile, a batch as it is read, 9 bytes for each row of the cluster.
    """
    place = _place(task, tile.cluster)
    wanted = load_array(place / "row_of_rank.npy")[tile.start : tile.stop]
    by_row = np.argsort(wanted)
    sorted_rows = wanted[by_row]
    rows = np.empty((len(wanted), task.dim), dtype=np.float32)
    position = 0
    for url in tile.cluster.urls:
        with open_parquet(task.clusters.at(url)) as file:
            for batch in _batches(file, [task.fields.embedding_field]):
                low, high = np.searchsorted(sorted_rows, [position, position + len(batch)])
                if low < high:
                    chosen = pa.chunked_array([batch.column(0)]).take(pa.array(sorted_rows[low:high] - position))
                    present = pa.chunked_array([np.ones(high - low, dtype=bool)])  # stands in for the ids
                    checked = check_rows(present, chosen, task.dim)
                    rows[by_row[low:high]] = checked.unit()
                position += len(batch)
    informs = load_array(place / "informs.npy")[tile.start : tile.stop]
    candidates = np.flatnonzero(informs)
    candidates = candidates[first_occurrences(rows[candidates])]
    save_array(place / f"rows-{tile.number}.npy", rows)
    save_array(place / f"candidates-{tile.number}.npy", candidates)
    return {"rows": len(rows)}


def compare_tile(task: Comparison, tiles: Sequence[Tile], number: int) -> dict[str, Any]:
    """Compare the rows of one tile with its better-ranked rows and those of all tiles before it.

    Memory: two tiles, twice each while one is read or thinned out, and the products of `best_match`.
    """
    xp = backend_module(task.backend)
    tile = tiles[number]
    place = _place(task, tile.cluster)
    informs = load_array(place / "informs.npy")[tile.start : tile.stop]
    rows = load_array(place / f"rows-{number}.npy")
    asking = np.flatnonzero(informs)
    queries, ranks = xp.asarray(rows[asking]), xp.asarray(asking + tile.start)
    score = np.zeros(len(asking), dtype=np.float32)
    match = np.full(len(asking), -1, dtype=np.int64)
    for other in tiles[: number + 1]:  # best ranks first, so that of equal scores the first found wins
        chosen = load_array(place / f"candidates-{other.number}.npy")
        block = rows if other.number == number else load_array(place / f"rows-{other.number}.npy")
        candidate_ranks = chosen + other.start
        found = best_match(queries, ranks, xp.asarray(block[chosen]), xp.asarray(candidate_ranks), task.batch_size)
        found_score, position = to_host(found.score), to_host(found.position)
        better = (position >= 0) & ((found_score > score) | (match < 0))
        score[better], match[better] = found_score[better], candidate_ranks[position[better]]
    every_score = np.zeros(len(rows), dtype=np.float32)
    every_match = np.arange(tile.start, tile.stop)
    every_score[asking] = score
    every_match[asking] = np.where(match < 0, asking + tile.start, match)
    save_array(place / f"score-{number}.npy", every_score)
    save_array(place / f"match-{number}.npy", every_match)
    return {"rows": len(rows)}


def _compare_tile_item(task: Comparison, item: tuple[tuple[Tile, ...], int]) -> dict[str, Any]:
    return compare_tile(task, *item)


def write_large_cluster(task: Comparison, tiles: Sequence[Tile]) -> dict[str, Any]:
    """Put the scores of the tiles of one cluster together into its table. Memory: the ids of the cluster and a tile."""
    place = _place(task, tiles[0].cluster)
    ids = read_table(place / "ids.parquet").column("id").combine_chunks()

    def tables() -> Iterator[pa.Table]:
        for tile in tiles:
            match = load_array(place / f"match-{tile.number}.npy")
            score = load_array(place / f"score-{tile.number}.npy")
            own = ids.slice(tile.start, tile.stop - tile.start)
            yield pa.table([own, ids.take(pa.array(match)), pa.array(score)], schema=score_schema(ids.type))

    name = f"cluster_{tiles[0].cluster.label}.parquet"
    write_batches(task.target / name, score_schema(ids.type), tables(), task.write_kwargs)
    return {"rows": len(ids), "files": [name], "quarantined": {}, "quarantine_files": []}


def score_clusters(
    session: Session,
    files: Sequence[FileInfo],
    source: Location,
    fields: InputOptions,
    strategy: RankingStrategy,
    batch_size: int,
    destination: Destination,
) -> dict[str, Any]:
    """Score all clusters in `files` and write a table for each, resuming where an earlier run stopped.

    The manifest of the destination must have the step on record as begun.

    Returns:
        Facts: rows scored, rows quarantined by reason, clusters.
    """
    manifest = Manifest(destination.root)
    scratch = destination.root / SCRATCH / STEP
    with manifest.refusing(STEP):
        fields, facts = _inspect(session, files, source, fields, strategy)
        clusters = find_clusters(files, facts)
        if not clusters:
            raise InputError(f"no rows in the clusters of {source}")
        dim = fields.embedding_dim or _commonest_length(source, clusters, fields)
    n_values = sum(file.n_values for file in facts)
    plan_file = scratch / "plan.json"
    if not plan_file.exists():
        plan_file.write_json({"task_bytes": bytes_per_task(session, 4 * n_values)})
    rows_per_task = max(1, plan_file.read_json()["task_bytes"] // (4 * dim))
    task = Comparison(
        clusters=source,
        target=destination.root / temporary_name(destination.folder, STEP),
        quarantine=destination.root / temporary_name(QUARANTINE, STEP),
        scratch=scratch,
        fields=fields,
        strategy=strategy,
        dim=dim,
        batch_size=batch_size,
        backend=session.backend,
        write_kwargs=without_storage_options(destination.write_kwargs),
    )
    small, large = pack_groups(clusters, rows_per_task)
    results = [*_score_large(session, task, large, rows_per_task)]
    scored = run_journaled(session, "compare", partial(score_group, task), small, scratch / "groups", unit="groups")
    results += [result for _, result in scored]
    n_scored = sum(result["rows"] for result in results)
    quarantined = sum((Counter(result["quarantined"]) for result in results), Counter[str]())
    n_rows = sum(cluster.n_rows for cluster in clusters)
    if n_scored + sum(quarantined.values()) != n_rows:
        raise IntegrityError(
            f"{n_rows} rows stand in the clusters, but {n_scored} were scored and {quarantined} quarantined"
        )
    listed = [join(destination.folder, name) for result in results for name in result["files"]]
    listed += [join(QUARANTINE, name) for result in results for name in result["quarantine_files"]]
    manifest.announce(STEP, listed)
    task.target.move_into(below(destination.root, destination.folder))
    task.quarantine.move_into(destination.root / QUARANTINE)
    outcome = {"rows": n_scored, "quarantined": dict(quarantined), "clusters": len(clusters)}
    manifest.commit(STEP, listed, outcome)
    scratch.remove_tree()
    scratch.parent.remove_if_empty()
    return outcome


def _inspect(
    session: Session, files: Sequence[FileInfo], source: Location, fields: InputOptions, strategy: RankingStrategy
) -> tuple[InputOptions, list[FileFacts]]:
    """The names of the columns, and the facts of all files, after checking that they can be compared and ranked."""
    groups = [files[i : i + FILES_PER_INSPECTION] for i in range(0, len(files), FILES_PER_INSPECTION)]
    items = [[(source.at(file.url), file.url) for file in group] for group in groups]
    inspect = partial(inspect_files, fields.embedding_field, False)
    found = dict(session.run("inspect clusters", inspect, items, unit="groups"))
    facts = [file for position in sorted(found) for file in found[position][0]]
    return _check_columns(facts, fields, strategy), facts


def check_first_files(
    files: Sequence[FileInfo], source: Location, fields: InputOptions, strategy: RankingStrategy
) -> None:
    """Refuse on the client, before a cluster is started, what the footers of the first files show to be wrong."""
    first = [(source.at(file.url), file.url) for file in files[:FILES_CHECKED_FIRST]]
    facts, _ = inspect_files(fields.embedding_field, False, first)
    _check_columns(facts, fields, strategy)


def _check_columns(facts: Sequence[FileFacts], fields: InputOptions, strategy: RankingStrategy) -> InputOptions:
    """The names of the columns, after checking that all files have those that are compared and ranked by."""
    for file in {file.schema: file for file in facts if file.n_rows}.values():
        schema = pa.ipc.read_schema(pa.py_buffer(file.schema))
        fields = _own_names(fields, schema)
        check_file_schema(schema, file.source, fields)
        check_rankable(schema, strategy, file.source)
    return fields


def _own_names(fields: InputOptions, schema: pa.Schema) -> InputOptions:
    """`KMeansStage` calls its columns ``id`` and ``embedding``, whatever they were called in its input."""
    there = schema.names
    return replace(
        fields,
        id_field="id" if fields.id_field not in there and "id" in there else fields.id_field,
        embedding_field="embedding"
        if fields.embedding_field not in there and "embedding" in there
        else fields.embedding_field,
    )


def _commonest_length(source: Location, clusters: Sequence[Cluster], fields: InputOptions) -> int:
    column = read_table(source.at(clusters[0].urls[0]), [fields.embedding_field]).column(0)
    length = commonest_length(length_counts(column))
    if not length:
        raise BadFileError(f"the file {clusters[0].urls[0]} has no embeddings; give embedding_dim")
    return length


def _score_large(
    session: Session, task: Comparison, large: Sequence[Cluster], rows_per_tile: int
) -> list[dict[str, Any]]:
    if not large:
        return []
    rank = partial(rank_large_cluster, task)
    ranked = dict(run_journaled(session, "rank", rank, large, task.scratch / "rank", unit="large clusters"))
    tiled = [tuple(tiles_of(cluster, ranked[i]["ranked"], rows_per_tile)) for i, cluster in enumerate(large)]
    tiled = [tiles for tiles in tiled if tiles]
    every = [tile for tiles in tiled for tile in tiles]
    lay_out = partial(lay_out_tile, task)
    for _ in run_journaled(session, "lay out", lay_out, every, task.scratch / "layout", unit="tiles"):
        pass
    pairs = [(tiles, number) for tiles in tiled for number in reversed(range(len(tiles)))]  # the longest first
    compare = partial(_compare_tile_item, task)
    for _ in run_journaled(session, "compare tiles", compare, pairs, task.scratch / "tiles", unit="tiles"):
        pass
    write = partial(write_large_cluster, task)
    written = run_journaled(session, "write large", write, tiled, task.scratch / "large", unit="clusters")
    aside = [{**result, "rows": 0, "files": []} for result in ranked.values()]
    return aside + [result for _, result in written]
