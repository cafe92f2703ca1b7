"""`calibrate`: from a result and verdicts on some of its pairs to an eps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.calibration.bands import BandSample
from semdedup.calibration.intervals import Judged, precision_and_recall
from semdedup.calibration.result import Calibration, figures_of
from semdedup.calibration.verdicts import Verdict, Verdicts, parse_verdicts, read_verdicts
from semdedup.dedup.base.folders import results_in
from semdedup.dedup.names import KMEANS, PAIRWISE, SCORE
from semdedup.dedup.results.checks import COLUMNS
from semdedup.dedup.results.load import load
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.results.scores import Scores
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.runs.record import Record
from semdedup.settings import Setting
from semdedup.settings.kinds import number
from semdedup.storage.location import Location
from semdedup.video.clip_meta import parse_object

FILE_NAME = "_calibration.json"
FORMAT = "semdedup calibration 1"

MIN_PRECISION = Setting(
    number(0, 1),
    None,
    "Recommend the largest eps whose precision is at least this; by default the eps of the best F1 score.",
    "min_precision",
)


def calibrate(
    results: str,
    verdicts: str | Mapping[str, Any],
    *,
    min_precision: float | None = None,
    store: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> Calibration:
    """Recommend an eps for a result, from verdicts on pairs that were judged on its page.

    A pair is a row and the row that its score is about. Precision at an eps is the share of the pairs that go there
    that are the same, recall the share of the pairs that are the same that goes: of those that were compared, with a
    score in the bands that were judged. Pairs go by their score alone, as under the rule ``any``; other rules differ
    where clips resemble each other in chains. Estimates are weighted by the sizes of the bands of score, of which the
    pairs were drawn at random; intervals are those of Clopper and Pearson, put together: see `calibration.intervals`.
    They tell how sure a figure is at one eps, and nothing of verdicts that are wrong; pairs about which a person was
    unsure count as not judged.

    Args:
        results: folder of a dedup, or the root of a run.
        verdicts: the file that the page gave, local or remote; or its content.
        min_precision: recommend the largest eps whose precision is estimated at this or more. By default the eps of
            the largest F1 score, 2 · precision · recall / (precision + recall); of equal ones the smallest.
        store: write ``_calibration.json`` into the folder of the result; one of before is replaced.
        storage_options: for fsspec.

    Raises:
        InputError: the verdicts are of another result, or are none; or no pair was judged the same.
        ParameterError: no eps has that precision.
        OutputConflictError: there is a file of that name which is not ours.

    Cost: two readings of the scores.

    Example:
        >>> found = semdedup.calibrate("out/dedup", "verdicts.json", min_precision=0.95)
        >>> semdedup.extract("out/dedup", found.eps)
    """
    wanted = None if min_precision is None else MIN_PRECISION.check(min_precision)
    if isinstance(verdicts, str):
        given = read_verdicts(Location.of(verdicts, storage_options))
    else:
        given = parse_verdicts(verdicts)
    result = load(results, storage_options=storage_options)
    target = Location.of(str(result.paths["results"]), storage_options) / FILE_NAME
    if store:
        _check_target(target)
    calibration = replace(_calibrated(result, given, wanted, target.parent), path=str(target) if store else "")
    if store:
        target.write_json({"format": FORMAT, **calibration.to_json()}, forced=True)
    return calibration


def _calibrated(result: DedupResult, given: Verdicts, min_precision: float | None, root: Location) -> Calibration:
    """The calibration of a result, which is in the folder `root`."""
    assert result.scores is not None
    found = _found(result, given)
    steps = [Record(place).every_step for place in results_in(root)]
    eps, figures = _figures(result.scores, given, found)
    return Calibration(
        eps=_recommended(figures, min_precision),
        figures=figures,
        embedder=embedder_of(steps),
        judged=len(found),
        same=sum(verdict.same for verdict in found),
        least_score=float(1 - eps),
        result=str(root),
        scores=commit_of(steps),
    )


def stored_calibration(root: Location, scores: str) -> dict[str, Any] | None:
    """What `calibrate` has stored for these scores in the folder of a result; None where there is nothing."""
    content = parse_object((root / FILE_NAME).read_bytes()) if (root / FILE_NAME).exists() else {}
    ours = isinstance(content, dict) and content.get("format") == FORMAT and content.get("scores") == scores
    return content if ours and isinstance(content, dict) else None


def commit_of(steps: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """What the records of results call the commits of their scores; empty where one has none."""
    commits = [str(step.get(PAIRWISE, {}).get("commit", "")) for step in steps]
    return " ".join(commits) if all(commits) else ""


def embedder_of(steps: Sequence[Mapping[str, Mapping[str, Any]]]) -> str | None:
    """The one embedder that the records of results name; None where they name none, or several."""
    names = {name for step in steps for name in step.get(KMEANS, {}).get("facts", {}).get("embedders", ())}
    return str(names.pop()) if len(names) == 1 else None


def _check_target(target: Location) -> None:
    if target.exists():
        content = parse_object(target.read_bytes())
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise OutputConflictError(f"{target} exists and is no calibration of semdedup; move it away")


def _found(result: DedupResult, given: Verdicts) -> list[Verdict]:
    """The verdicts, with ids in the type that they have in the result. One reading of the ids.

    Raises:
        InputError: pairs are not in the scores as they were judged.
    """
    assert result.scores is not None
    ids = _typed(result, given)
    wanted = pa.array(list(ids), result.scores.id_type)
    missing = dict(ids)
    for _, batch in result.scores.batches(COLUMNS):
        for row in batch.filter(pc.is_in(batch.column("id"), wanted)).to_pylist():
            verdict = ids[row["id"]]
            if (str(row["max_id"]), np.float32(row[SCORE])) == (str(verdict.max_id), np.float32(verdict.score)):
                missing.pop(row["id"], None)
    if missing:
        first = next(iter(missing.values()))
        raise InputError(
            f"{len(missing):,} of the {len(ids):,} pairs in {given.name} are not in {result.paths['results']}, such as "
            f"{first.id!r} with {first.max_id!r} at score {first.score:.6g}: they were judged on the page of another "
            "result. Make the page of this one with semdedup report, and judge its pairs"
        )
    return list(ids.values())


def _typed(result: DedupResult, given: Verdicts) -> dict[Any, Verdict]:
    try:
        ids = {result.row_id(str(verdict.id)): verdict for verdict in given.verdicts}
        pa.array(list(ids), result.scores.id_type if result.scores else None)
    except (ParameterError, pa.ArrowException, OverflowError) as error:
        raise InputError(
            f"{given.name} has ids that {result.paths['results']} cannot have, so they are of another result: {error}"
        ) from error
    return ids


def _figures(scores: Scores, given: Verdicts, found: Sequence[Verdict]) -> tuple[float, pd.DataFrame]:
    """The eps at which all bands that were judged go, and the figures at each eps between them. One reading."""
    bands = given.bands
    sample = BandSample(bands, 0)
    scores.tally(sample)
    placed = bands.of(np.array([verdict.score for verdict in found], np.float32))
    same = np.array([verdict.same for verdict in found])
    judged, n_same = (np.bincount(placed[rows], minlength=len(bands)) for rows in (slice(None), same))
    n = int(np.flatnonzero(judged)[-1]) + 1
    of_bands = Judged(sample.sizes, judged, n_same).first(n)
    if not n_same.sum():
        raise InputError(
            f"none of the {len(found):,} pairs that were judged is the same, so that no eps is right: judge pairs of "
            "higher scores, or compare with another embedder"
        )
    edges = bands.edges[:n]
    removed, n_judged = (np.cumsum(counts)[: len(edges)].tolist() for counts in (sample.sizes, judged))
    if not n_judged or not n_judged[-1]:
        raise InputError(f"the pairs that were judged go at no eps up to {bands.edges[-1]:g}: judge others, too")
    shares = precision_and_recall(of_bands, range(1, len(edges) + 1))
    least = edges[-1] if n <= len(bands.edges) else 1.0
    return least, figures_of(edges, removed, n_judged, shares)


def _recommended(figures: pd.DataFrame, min_precision: float | None) -> float:
    precision, recall = figures["precision"].to_numpy(), figures["recall"].to_numpy()
    if min_precision is None:
        f1 = 2 * precision * recall / np.maximum(1e-12, precision + recall)
        return float(figures["eps"].iloc[int(np.nanargmax(np.round(f1, 9)))])
    reached = np.flatnonzero(precision >= min_precision - 1e-9)
    if not len(reached):
        raise ParameterError(
            f"min_precision {min_precision:g} (--min-precision) is reached at no eps: the best precision is "
            f"{np.nanmax(precision):.3g}, at eps {figures['eps'].iloc[int(np.nanargmax(precision))]:.6g}"
        )
    return float(figures["eps"].iloc[reached[-1]])
