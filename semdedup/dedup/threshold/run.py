"""The threshold: from tables of scores to the ids to drop, by one of the removal rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.compare.lay_out import label_in
from semdedup.dedup.input.facts import Counted, inspect_all
from semdedup.dedup.input.planned import planned_rows
from semdedup.dedup.names import SCORE, WITNESSES, Destination, below, cluster_of, find_table, join, summary_name
from semdedup.dedup.results.checks import check_columns, check_together, foreign_files, read_checked
from semdedup.dedup.results.tallies import CountAt
from semdedup.dedup.threshold.components import look_at_large_components, remove_components
from semdedup.dedup.threshold.everywhere.components import remove_components_everywhere
from semdedup.dedup.threshold.everywhere.witness import remove_everywhere
from semdedup.dedup.threshold.groups import Removing, Targets, remove_in_group, write_removed
from semdedup.dedup.threshold.large import look_at_large
from semdedup.dedup.threshold.plan import Clusters, clusters_of, forest_groups, packed_base, packed_parts, removing_of
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.dedup.threshold.vectors import check_exact, exact_up_to_of, find_vectors, is_across, scores_record
from semdedup.errors import ParameterError
from semdedup.runs.run import Run
from semdedup.storage.location import FileInfo, Location, without_storage_options
from semdedup.storage.tables import RowGroups, cut_files, open_parquet

BYTES_PER_GROUP = 16 << 20


def check_score_files(files: Sequence[FileInfo], source: Location) -> None:
    """Refuse on the client, before a cluster is started, what the footers of the first files show to be wrong."""
    for file in files[: sizes.FILES_CHECKED_FIRST]:
        with open_parquet(source.at(file.url)) as parquet:
            if parquet.metadata.num_rows:
                check_columns(parquet.schema_arrow, file.url)


@dataclass(frozen=True)
class Rule:
    """What rows go.

    Attributes:
        eps: the threshold.
        count_at: thresholds at which rows are counted, too.
        removal: the rule.
        clusters_path: where the clusters are; None: where the record of the scores says.
    """

    eps: float
    count_at: tuple[float, ...] = ()
    removal: str = "any"
    clusters_path: str | None = None


@dataclass(frozen=True)
class Identification:
    """What every task of the rule `any` needs to know: where scores are, where ids go, the thresholds to count at.

    Scores `across` two sets have a witness each: rows of the other set stay.
    """

    scores: Location
    targets: Targets
    eps: float
    count_at: tuple[float, ...]


def identify_in_files(task: Identification, item: tuple[int, tuple[RowGroups, ...]]) -> dict[str, Any]:
    """Write the ids to drop of some tables of scores, sorted, as one file; those to keep, if asked for, as another.

    Memory: the ids that are written, twice.

    Returns:
        ``rows``, and ``removed`` for each threshold.
    """
    position, parts = item
    counts = CountAt([task.eps, *task.count_at])
    dropped: list[pa.Table] = []
    kept: list[pa.Array] = []
    names = {"id": "id", SCORE: SCORE, **({"max_id": "witness_id"} if task.targets.witnesses is not None else {})}
    for part in parts:
        for _, batch in read_checked(task.scores, part, list(names)):
            scores = batch.column(SCORE).to_numpy()
            counts.take(0, 0, scores)
            mask = duplicate_mask(scores, task.eps)
            goes = pa.Table.from_batches([batch.filter(pa.array(mask))])
            dropped.append(goes.rename_columns([names[name] for name in goes.column_names]))
            if task.targets.kept is not None:
                kept.append(batch.column("id").filter(pa.array(~mask)))
    write_removed(task.targets, position, dropped, kept)
    return {"rows": counts.n_rows, "removed": counts.duplicates}


def identify_duplicates(
    run: Run,
    score_files: Sequence[FileInfo],
    source: Location,
    rule: Rule,
    folders: tuple[str, str],
    destination: Destination,
) -> dict[str, Any]:
    """Write the ids of all rows that go by a rule, resuming where an earlier run stopped.

    For each eps of `count_at` a summary of one line, ``dedup_summary_{eps}.csv``, is written. `folders` are those of
    the summaries, and of the ids to keep (empty: these are not written), below the destination's root.

    Returns:
        Facts: rows, duplicates, and rows removed at each eps of `count_at`.
    """
    summaries, kept_folder = folders
    targets = Targets(
        dropped=below(run.final, destination.folder),
        kept=run.final / kept_folder if kept_folder else None,
        witnesses=None if rule.removal == "any" else run.final / WITNESSES,
        write_kwargs=without_storage_options(destination.write_kwargs),
    )
    found = remove(run, score_files, source, rule, targets)
    rows = sum(result["rows"] for result in found)
    duplicates, *removed = (sum(each) for each in zip(*(result["removed"] for result in found), strict=True))
    facts: dict[str, Any] = {
        "rows": rows,
        "duplicates": duplicates,
        "removed_at": dict(zip(map(repr, rule.count_at), removed, strict=True)),
    }
    with run.noting():
        for at in rule.count_at:
            removed = facts["removed_at"][repr(at)]
            line = f"eps,kept,removed,total\n{at!r},{rows - removed},{removed},{rows}\n"
            (run.final / join(summaries, summary_name(at))).write_bytes(line.encode())
    return facts


def remove(
    run: Run, score_files: Sequence[FileInfo], source: Location, rule: Rule, targets: Targets
) -> list[dict[str, Any]]:
    """Write what goes by a rule; for each task its rows, and how many are removed at each threshold."""
    compared = scores_record(source)
    check_exact(compared, [rule.eps, *rule.count_at])
    _check_foreign(run, score_files, source)
    if rule.removal == "any" or is_across(compared):
        check_across(rule, compared)
        task = Identification(source, targets, rule.eps, rule.count_at)
        with run.refusing():
            items = list(enumerate(cut_files(score_files, source, BYTES_PER_GROUP)))
            return run.results("threshold", partial(identify_in_files, task), items, unit="groups", label=_group_label)
    return _remove_in_clusters(run, score_files, source, rule, targets)


def _check_foreign(run: Run, score_files: Sequence[FileInfo], source: Location) -> None:
    """Look at the ids of tables that are not ours before anything is made of them."""
    foreign = foreign_files(score_files, find_table(source, "scores"))
    if foreign:
        with run.refusing():
            each = partial(run.results, unit="groups", label=_ids_label)
            check_together(foreign, source, run.scratch, each)


def check_across(rule: Rule, compared: Mapping[str, Any]) -> None:
    """Refuse components of rows of two sets."""
    if rule.removal == "components" and is_across(compared):
        raise ParameterError(
            "removal must be any or witness for scores of one set against another, of which only one loses rows: "
            "there are no components; got 'components'"
        )


def _remove_in_clusters(
    run: Run, score_files: Sequence[FileInfo], source: Location, rule: Rule, targets: Targets
) -> list[dict[str, Any]]:
    session, scored = run.session, {cluster_of(file.url): file.url for file in score_files}
    with run.refusing():
        vectors = find_vectors(source, rule.removal, rule.clusters_path)
        facts, _ = inspect_all(session, vectors.located, Counted.of(vectors.fields), name="inspect clusters")
        found = clusters_of(vectors, facts, scored)
        scratch, thresholds = run.scratch / "second-look", [rule.eps, *rule.count_at]
        task = removing_of(source, found, thresholds, rule.removal, scratch, session.backend)
    rows = planned_rows(run, scratch / "plan.json", found.n_bytes, found.dim, found.other_bytes)
    with run.refusing():  # the clusters may not be those of the scores
        if exact_up_to_of(scores_record(source)) is not None:
            results = _remove_everywhere(run, task, targets, found, scored, rows)
        else:
            results = _remove_within(run, task, targets, found, scored, rows)
    find_vectors(source, rule.removal, rule.clusters_path)  # they were read, so that they are looked at again
    at = [task.thresholds.index(eps) for eps in thresholds]
    return [{**result, "removed": [result["removed"][i] for i in at]} for result in results]


def _remove_within(
    run: Run,
    task: Removing,
    targets: Targets,
    found: Clusters,
    scored: Mapping[int, str],
    rows: sizes.TaskRows,
) -> list[dict[str, Any]]:
    """Each cluster by itself."""
    look = partial(run.results, unit="tiles", label=_part_label)
    items: list[Any]
    if task.removal == "components":
        if task.forest is None:
            eps = max(task.thresholds)
            run.reporter.say(f"no forest of matches up to eps {eps:g}: the clusters are compared again")
        groups = forest_groups(task, found.clusters, scored, rows)
        look_at_large_components(task, [group for group in groups if group[0][0].large], rows.most, look)
        write, items = partial(remove_components, task, targets), list(enumerate(groups))
    else:
        parts = packed_parts(found.clusters, scored, rows)
        look_at_large(task, [group[0] for group in parts if group[0].large], rows.most, look)
        write, items = partial(remove_in_group, task, targets), list(enumerate(parts))
    return run.results("threshold", write, items, unit="groups", label=_part_label)


def _remove_everywhere(
    run: Run,
    task: Removing,
    targets: Targets,
    found: Clusters,
    scored: Mapping[int, str],
    rows: sizes.TaskRows,
) -> list[dict[str, Any]]:
    """All clusters together: matches were found across them."""
    each = partial(run.results, unit="groups", label=_part_label)
    groups = packed_parts(found.clusters, scored, rows)
    base = packed_base(found.base, rows)
    if task.removal == "components":
        return remove_components_everywhere(task, targets, groups, base, each)
    return remove_everywhere(task, targets, groups, base, rows.most, each)


def _group_label(item: tuple[int, Sequence[RowGroups]]) -> str:
    return f"the tables of scores from {item[1][0].url} on"


def _ids_label(item: Any) -> str:
    return "the ids of tables of scores"


def _part_label(item: Any) -> str:
    """What a task on clusters is called where a worker dies of it."""
    label = label_in(item)
    return "rows of several clusters" if label is None else f"the scores of cluster {label}"
