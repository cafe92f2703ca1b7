"""How well a table of overlaps tells what videos share: recall and errors by change, and what is told of strangers."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.planted_videos import SHORTEST_S, Stretch, Video, shared_stretches

FOUND_IOU = 0.8
"""A planted stretch is found if in both videos what is told and what is true share this much of their union."""

NEAR_S = 1.0
"""What is told of two videos that share something is right if it is off by less."""

NAMED = 60
"""Faults that are printed; all of them are among the figures."""

Pair = tuple[str, str]


class Match(NamedTuple):
    """The overlap nearest to a planted stretch; all but `iou` are nan where the pair of videos has none.

    Attributes:
        iou: the lesser of those in a and in b; 0 where there is none.
        speed_error: told minus true.
        offset_s: told minus true moment of a at the middle of the stretch in b.
    """

    iou: float
    speed_error: float
    offset_s: float

    @property
    def found(self) -> bool:
        return self.iou >= FOUND_IOU


def turned(stretch: Stretch) -> Stretch:
    """The same with a and b exchanged."""
    return Stretch(
        video_a=stretch.video_b,
        start_a_s=stretch.start_b_s,
        end_a_s=stretch.end_b_s,
        video_b=stretch.video_a,
        start_b_s=stretch.start_a_s,
        end_b_s=stretch.end_a_s,
        speed=1 / stretch.speed,
        mirrored=stretch.mirrored,
    )


def iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection of two spans of time over their union."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return max(shared, 0.0) / (one[1] - one[0] + other[1] - other[0] - shared) if shared > 0 else 0.0


def _offset_s(told: Stretch, true: Stretch) -> float:
    middle = (true.start_b_s + true.end_b_s) / 2
    at = [each.start_a_s + each.speed * (middle - each.start_b_s) for each in (told, true)]
    return at[0] - at[1]


def by_pair(told: Iterable[Stretch]) -> dict[Pair, list[Stretch]]:
    """Overlaps by their two videos, the lesser name first, and a the first."""
    found: dict[Pair, list[Stretch]] = {}
    for each in told:
        ordered = each if each.video_a <= each.video_b else turned(each)
        found.setdefault((ordered.video_a, ordered.video_b), []).append(ordered)
    return found


def match(true: Stretch, told: Mapping[Pair, Sequence[Stretch]]) -> Match:
    """The overlap of the two videos that is nearest to what is true."""
    found = []
    for each in told.get(_key(true), ()):
        each = each if each.video_a == true.video_a else turned(each)
        in_a = iou((each.start_a_s, each.end_a_s), (true.start_a_s, true.end_a_s))
        in_b = iou((each.start_b_s, each.end_b_s), (true.start_b_s, true.end_b_s))
        found.append(Match(min(in_a, in_b), each.speed - true.speed, _offset_s(each, true)))
    return max(found, default=Match(0.0, float("nan"), float("nan")))


def summary(matches: Sequence[Match]) -> dict[str, Any]:
    """How many of planted stretches were found, and how well those that were."""
    right = [each for each in matches if each.found]
    values = np.array(right or [Match(np.nan, np.nan, np.nan)])
    return {
        "planted": len(matches),
        "found": len(right),
        "recall": len(right) / max(1, len(matches)),
        "iou": float(values[:, 0].mean()),
        "speed_error": float(np.abs(values[:, 1]).mean()),
        "offset_error_s": float(np.abs(values[:, 2]).mean()),
    }


def score(
    videos: Sequence[Video], planted: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], mirror: bool
) -> dict[str, Any]:
    """What a table of overlaps is worth.

    Args:
        videos: all that were compared.
        planted: the answers, with ``change``; see `planted_videos`.
        rows: of the table of overlaps.
        mirror: whether mirrored copies were looked for; else none counts as planted.

    Returns:
        ``changes``: `summary` by change. ``missed``: planted stretches that were not found, with the IoU of the
        nearest. ``copies``: `summary` over all stretches of 4 s or more that any two copies share, of those too that
        stand in the copies of other sources. ``strangers``: pairs of videos that share nothing. ``false``: the rows
        about these. ``elsewhere``: rows about videos that share something, but not that; a source may well repeat
        itself. ``within``: rows about one video.
    """
    told = [_stretch(row) for row in rows]
    pairs = by_pair(told)
    changes: dict[str, list[Match]] = {}
    missed = []
    for each in planted:
        if each["mirrored"] and not mirror:
            continue
        found = match(_stretch(each), pairs)
        changes.setdefault(each["change"], []).append(found)
        if not found.found:
            missed.append({"video_a": each["video_a"], "video_b": each["video_b"], "iou": found.iou})
    related: dict[Pair, list[Stretch]] = {}
    strangers = 0
    for a, b in itertools.combinations(sorted(videos, key=lambda video: video.name), 2):
        shared = shared_stretches(a, b)
        if shared:
            related[a.name, b.name] = shared
        else:
            strangers += 1
    copies = {video.name for video in videos if video.change != "source"}
    among = [
        match(stretch, pairs)
        for pair, shared in related.items()
        for stretch in shared
        if copies.issuperset(pair)
        and (mirror or not stretch.mirrored)
        and min(stretch.end_a_s - stretch.start_a_s, stretch.end_b_s - stretch.start_b_s) >= SHORTEST_S
    ]
    apart = [(row, each) for row, each in zip(rows, told, strict=True) if each.video_a != each.video_b]
    return {
        "changes": {name: summary(matches) for name, matches in changes.items()},
        "missed": missed,
        "copies": summary(among),
        "strangers": strangers,
        "false": [dict(row) for row, each in apart if _key(each) not in related],
        "elsewhere": [
            dict(row) for row, each in apart if _key(each) in related and not _is_true(each, related[_key(each)])
        ],
        "within": len(rows) - len(apart),
    }


def _stretch(row: Mapping[str, Any]) -> Stretch:
    return Stretch(**{each.name: row[each.name] for each in fields(Stretch) if each.name in row})


def _key(stretch: Stretch) -> Pair:
    first, second = sorted((stretch.video_a, stretch.video_b))
    return first, second


def _is_true(told: Stretch, shared: Sequence[Stretch]) -> bool:
    """Whether something that the videos share is told: most of the stretch lies in it, at the right offset."""
    told = told if told.video_a <= told.video_b else turned(told)
    for true in shared:
        start, end = max(told.start_b_s, true.start_b_s), min(told.end_b_s, true.end_b_s)
        if end - start > (told.end_b_s - told.start_b_s) / 2:
            here = replace(true, start_b_s=start, end_b_s=end)
            at = true.start_a_s + true.speed * (start - true.start_b_s)
            if abs(_offset_s(told, replace(here, start_a_s=at))) < NEAR_S:
                return True
    return False


def lines(found: Mapping[str, Any]) -> list[str]:
    """The score in words and columns."""
    text = [f"  {'change':<16}{'planted':>8}{'found':>7}{'recall':>8}{'IoU':>7}{'speed off':>11}{'offset off':>12}"]
    for name, each in (*found["changes"].items(), ("any two copies", found["copies"])):
        text.append(
            f"  {name:<16}{each['planted']:>8,}{each['found']:>7,}{each['recall']:>8.3f}{each['iou']:>7.3f}"
            f"{each['speed_error']:>11.4f}{each['offset_error_s']:>10.3f} s"
        )
    told = found["false"]
    text.append(
        f"  {found['strangers']:,} pairs of different videos, {len(told)} false overlaps; {len(found['elsewhere'])} "
        f"overlaps elsewhere in the same source, {found['within']} within one video"
    )
    text += [
        f"    FALSE {row['video_a']} {row['start_a_s']:.1f}-{row['end_a_s']:.1f} s, "
        f"{row['video_b']} {row['start_b_s']:.1f}-{row['end_b_s']:.1f} s, score {row['score']:.3f}"
        for row in told[:NAMED]
    ]
    text += [
        f"    missed {row['video_a']} in {row['video_b']} (IoU {row['iou']:.2f})" for row in found["missed"][:NAMED]
    ]
    return text
