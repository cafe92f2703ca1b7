"""Draw the pictures of the documentation: ``python docs/pictures/draw.py`` writes the SVG files beside it.

What a picture says of rules is what the program's own functions say of the rows that are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np

from semdedup.dedup.kernels.best_match import max_similarity
from semdedup.dedup.kernels.forest import components
from semdedup.dedup.kernels.greedy import removal_in_rank_order
from semdedup.dedup.threshold.rule import duplicate_mask, least_score

INK, GREY, LIGHT = "#1f2933", "#66727f", "#e4e9ee"
KEPT, DROPPED, OTHER = "#1f7a99", "#c2602a", "#7a5ea8"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Drawing:
    """An SVG file as it grows."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        self.parts = [
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
            *(
                f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
                f'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
                for name, colour in (("grey", GREY), ("dropped", DROPPED))
            ),
        ]

    def text(self, x: float, y: float, words: str, *, size: int = 14, fill: str = INK, anchor: str = "middle",
             weight: int = 400) -> None:  # fmt: skip
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, *, fill: str = "#ffffff", stroke: str = INK,
            radius: int = 6, line: float = 1.4) -> None:  # fmt: skip
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{line:g}"/>'
        )

    def dot(self, x: float, y: float, radius: float, *, fill: str, stroke: str = "none") -> None:
        self.parts.append(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:g}" fill="{fill}" stroke="{stroke}" '
                          'stroke-width="2"/>')  # fmt: skip

    def path(self, shape: str, *, stroke: str = GREY, line: float = 1.6, dashes: str = "", arrow: str = "",
             fill: str = "none") -> None:  # fmt: skip
        more = f' stroke-dasharray="{dashes}"' * bool(dashes) + f' marker-end="url(#{arrow})"' * bool(arrow)
        self.parts.append(f'<path d="{shape}" fill="{fill}" stroke="{stroke}" stroke-width="{line:g}"{more}/>')

    def svg(self) -> str:
        begin = f'<svg xmlns="http://www.w3.org/2000/svg" {self.size} font-family="{FONT}">'
        return "\n".join([begin, *self.parts, "</svg>"]) + "\n"


def flow() -> str:
    """From videos to a dataset."""
    drawing = Drawing(900, 300, "From videos to a dataset without near-duplicates")

    def step(x: float, y: float, width: float, name: str, lines: Sequence[str], colour: str = INK) -> None:
        drawing.box(x, y, width, 40 + 18 * len(lines), stroke=colour, fill="#f7f9fb")
        drawing.text(x + width / 2, y + 25, name, size=16, weight=600, fill=colour)
        for i, line in enumerate(lines):
            drawing.text(x + width / 2, y + 46 + 18 * i, line, size=12, fill=GREY)

    for i in range(3):
        drawing.box(22 + 8 * i, 106 + 8 * i, 84, 54, fill="#ffffff", stroke=INK)
        drawing.path(f"M{56 + 8 * i} {120 + 8 * i}l20 13-20 13z", stroke=INK, fill=LIGHT)
    drawing.text(72, 205, "videos", size=15, weight=600)
    step(164, 102, 138, "split", ["clips, embeddings,", "fingerprint tracks"])
    step(366, 34, 164, "overlaps", ["the same stretch of time", "in two videos"], OTHER)
    step(366, 176, 164, "dedup", ["clips that look alike:", "cluster, compare, decide"], KEPT)
    step(604, 102, 120, "shard", ["what remains,", "WebDataset"])
    for i in range(3):
        drawing.box(782 + 8 * i, 106 + 8 * i, 76, 54, fill="#ffffff", stroke=KEPT)
        drawing.text(820 + 8 * i, 138 + 8 * i, "0000" if i == 2 else "", size=13, fill=KEPT)
    drawing.text(830, 205, "dataset", size=15, weight=600)
    for shape in (
        "M128 140H158",
        "M302 128C330 128 334 78 360 75",
        "M302 156C330 156 334 206 360 209",
        "M448 110V170",
        "M530 75C566 78 570 122 598 130",
        "M530 212C566 208 570 164 598 152",
        "M724 140H774",
    ):
        drawing.path(shape, arrow="grey")
    drawing.text(457, 145, "clips that remain", size=12, fill=GREY, anchor="start")
    drawing.path("M530 240C580 244 590 262 622 262", arrow="grey", dashes="4 4")
    drawing.text(632, 267, "report: look at pairs, move eps, take it", size=13, fill=GREY, anchor="start")
    return drawing.svg()


def eps() -> str:
    """What eps is: the cosine of an angle."""
    drawing = Drawing(740, 300, "eps is one minus the cosine of the angle between two embeddings")
    cx, cy, radius = 70, 262, 214
    drawing.path(f"M{cx + radius} {cy}A{radius} {radius} 0 0 0 {cx} {cy - radius}", stroke=LIGHT, line=2)

    def at(degrees: float, length: float = radius) -> tuple[float, float]:
        return cx + length * math.cos(math.radians(degrees)), cy - length * math.sin(math.radians(degrees))

    for limit, fill in ((math.degrees(math.acos(0.5)), "#f3ead9"), (math.degrees(math.acos(0.9)), "#cfe6ee")):
        x, y = at(limit)
        drawing.path(f"M{cx} {cy}H{cx + radius}A{radius} {radius} 0 0 0 {x:.1f} {y:.1f}z", stroke="none", fill=fill)
    clips = ((0, "the better clip", INK), (17, "a match at eps 0.1", KEPT), (48, "no match at eps 0.1", DROPPED))
    for degrees, name, colour in clips:
        x, y = at(degrees)
        drawing.path(f"M{cx} {cy}L{x:.1f} {y:.1f}", stroke=colour, line=2.4)
        drawing.dot(x, y, 5, fill=colour)
        drawing.text(x + 12, y + 5, name, anchor="start", fill=colour, weight=600)
    for least, degrees in ((0.9, math.degrees(math.acos(0.9))), (0.5, 60)):
        x, y = at(degrees, radius)
        drawing.path(f"M{cx} {cy}L{x:.1f} {y:.1f}", stroke=GREY, dashes="4 4")
        x, y = at(degrees, radius + 10)
        drawing.text(x, y, f"eps {1 - least:g}: {degrees:.1f}°", anchor="start", fill=GREY, size=13)
    drawing.text(440, 64, "similarity = cosine of the angle", anchor="start", size=15, weight=600)
    drawing.text(440, 88, "match: similarity ≥ 1 − eps", anchor="start", size=15)
    return drawing.svg()


def rows_at(degrees: Sequence[float]) -> np.ndarray:
    """Rows of length 1 at these angles, (n, 2) float32, in rank order."""
    angles = np.radians(np.asarray(degrees, dtype=np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def removed(rows: np.ndarray, eps: float) -> Mapping[str, np.ndarray]:
    """Which of these ranked rows go, (n,) truth, under each rule."""
    score, match = max_similarity(rows)
    least = least_score(eps)
    a, b = np.nonzero(np.triu(rows.astype(np.float64) @ rows.T.astype(np.float64) >= least, 1))
    labels = components(a, b, len(rows))
    first = {label: int(np.flatnonzero(labels == label)[0]) for label in set(labels.tolist())}
    return {
        "any": duplicate_mask(score, eps),
        "witness": removal_in_rank_order(rows, score, match, least).witness >= 0,
        "components": np.array([first[label] != i for i, label in enumerate(labels.tolist())]),
    }


def rules() -> str:
    """A chain and a bridge under the three rules."""
    step, eps = 11.0, 1 - math.cos(math.radians(12))
    examples = (
        ("a chain: each is like the next", [0, step, 2 * step, 3 * step]),
        ("3 is like 1 and like 2, which are not alike", [0, 2 * step, step]),
    )
    drawing = Drawing(920, 330, "Which rows go under the rules any, witness and components")
    for column, (title, degrees) in enumerate(examples):
        left = 150 + 410 * column
        drawing.text(left + 130, 40, title, size=15, weight=600)
        rows = rows_at(degrees)
        places = [left + 10 + 7.4 * angle for angle in degrees]
        for line, (rule, gone) in enumerate(removed(rows, eps).items()):
            y = 100 + 72 * line
            if column == 0:
                drawing.text(24, y + 5, rule, size=15, weight=600, anchor="start")
            order = np.argsort(places)
            for one, other in pairwise(order):
                drawing.path(f"M{places[one]:g} {y}H{places[other]:g}", stroke=LIGHT, line=5)
            for i, x in enumerate(places):
                if gone[i]:
                    drawing.dot(x, y, 15, fill="#ffffff", stroke=DROPPED)
                    drawing.path(f"M{x - 21:g} {y + 21}L{x + 21:g} {y - 21}", stroke=DROPPED, line=2)
                else:
                    drawing.dot(x, y, 16, fill=KEPT)
                drawing.text(x, y + 5, str(i + 1), weight=600, fill=DROPPED if gone[i] else "#ffffff")
            stay = len(rows) - int(gone.sum())
            drawing.text(left + 312, y + 5, f"{stay} stay" if stay > 1 else "1 stays", size=13, fill=GREY)
    drawing.dot(36, 300, 9, fill=KEPT)
    drawing.text(52, 305, "stays", size=13, anchor="start")
    drawing.dot(124, 300, 8, fill="#ffffff", stroke=DROPPED)
    drawing.path("M112 312L136 288", stroke=DROPPED, line=2)
    drawing.text(142, 305, "goes", size=13, anchor="start")
    drawing.path("M206 300H246", stroke=LIGHT, line=5)
    drawing.text(254, 305, "match; the number is the rank, 1 is the best", size=13, anchor="start")
    return drawing.svg()


def clusters() -> str:
    """A pair that the border between two clusters separates."""
    drawing = Drawing(640, 300, "Near-duplicates on both sides of the border between two clusters")
    random = np.random.default_rng(5)
    centres = np.array([(200.0, 130.0), (440.0, 130.0)])
    points = np.concatenate([random.normal(centre, (62, 44), (22, 2)) for centre in centres])
    drawing.path("M320 24V236", stroke=GREY, dashes="6 5")
    for x, y in points:
        left = x < 320
        if 24 < y < 236 and abs(x - 320) > 22:
            drawing.dot(x, y, 5, fill="#9ccfe0" if left else "#cdbce6")
    for (x, y), colour in zip(centres, (KEPT, OTHER), strict=True):
        drawing.path(f"M{x - 8:g} {y:g}h16M{x:g} {y - 8:g}v16", stroke=colour, line=3)
    drawing.path("M311 150L329 158", stroke=DROPPED, line=2.4)
    drawing.dot(309, 149, 6, fill=DROPPED)
    drawing.dot(331, 159, 6, fill=DROPPED)
    drawing.dot(160, 176, 6, fill=KEPT)
    drawing.dot(180, 184, 6, fill=KEPT)
    drawing.path("M160 176L180 184", stroke=KEPT, line=2.4)
    drawing.text(150, 262, "compared: both in one cluster", size=14, fill=KEPT, weight=600)
    drawing.text(452, 262, "missed, unless exact_up_to is given", size=14, fill=DROPPED, weight=600)
    drawing.path("M380 246C360 220 344 190 336 170", stroke=DROPPED, arrow="dropped")
    drawing.path("M150 246C152 226 158 208 166 194", stroke=KEPT)
    return drawing.svg()


def overlaps() -> str:
    """A stretch of one video in another."""
    drawing = Drawing(760, 250, "A stretch of video B is a stretch of video A")
    scale = 7.0
    a, b = (70.0, 60.0, 92), (210.0, 150.0, 44)
    for (x, y, seconds), name in ((a, "A"), (b, "B")):
        drawing.text(x - 30, y + 27, name, size=18, weight=600)
        drawing.box(x, y, scale * seconds, 40, fill="#f7f9fb")
    a_from, b_from, length = 34, 9, 30
    ax, bx = a[0] + scale * a_from, b[0] + scale * b_from
    shared = f"M{ax:g} 100L{bx:g} 150H{bx + scale * length:g}L{ax + scale * length:g} 100z"
    drawing.path(shared, stroke="none", fill="#e9e2f4")
    drawing.box(ax, a[1], scale * length, 40, fill="#cdbce6", stroke=OTHER)
    drawing.box(bx, b[1], scale * length, 40, fill="#cdbce6", stroke=OTHER)
    for i in range(0, 92, 10):
        drawing.path(f"M{a[0] + scale * i:g} {a[1]}v40", stroke=INK, line=1)
    for i in range(0, 44, 10):
        x, width = b[0] + scale * i, scale * min(10, 44 - i)
        gone = bx <= x + 0.2 * width and x + width <= bx + scale * length + 0.2 * width
        drawing.path(f"M{x:g} {b[1]}v40", stroke=INK, line=1)
        if gone:
            drawing.path(f"M{x + 6:g} {b[1] + 34:g}L{x + width - 6:g} {b[1] + 6:g}", stroke=DROPPED, line=2)
        drawing.text(x + width / 2, b[1] + 60, "goes" if gone else "stays", size=13, fill=DROPPED if gone else KEPT)
    drawing.text(ax + scale * length / 2, 46, "0:34 – 1:04", size=13, fill=OTHER, weight=600)
    words = "0:09 – 0:39; clips need not begin at the same moments"
    drawing.text(bx + scale * length / 2, 236, words, size=13, fill=OTHER, weight=600)
    return drawing.svg()


PICTURES: Mapping[str, Callable[[], str]] = {
    "flow": flow,
    "eps": eps,
    "rules": rules,
    "clusters": clusters,
    "overlaps": overlaps,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (Path(__file__).parent / f"{name}.svg").write_text(draw(), encoding="utf-8")
