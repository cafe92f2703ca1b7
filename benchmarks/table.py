"""The table and the plot: what each benchmark found, as rows of one kind."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BEGIN, END = "<!-- benchmarks: made by `python -m benchmarks --readme` -->", "<!-- end of benchmarks -->"
PLACE = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)


class Row(NamedTuple):
    """One line of the table, one bar of the plot.

    Attributes:
        what: what was measured.
        size: of what.
        ours: how long it took, or how much, with its unit.
        beside: what it stands beside.
        ratio: ours over that.
        peer: whether it stands beside a peer, and not beside what the machine does with the least that is needed.
        missed: what that misses, and what it has wrongly, of the exact answer, which ours is; empty if not counted.
    """

    what: str
    size: str
    ours: str
    beside: str
    ratio: float
    peer: bool = False
    missed: str = ""


def headline(machine: Mapping[str, Any], size: str) -> str:
    """What the figures were measured on, in one line."""
    amx = "with AMX" if machine["amx"] else "without AMX"
    return (
        f"{machine['cores']} cores of {machine['processor']} ({amx}), {machine['memory_gib']} GiB, NumPy "
        f"{machine['numpy']} with {machine['blas']}, size `{size}`"
    )


def markdown(machine: Mapping[str, Any], size: str, rows: Sequence[Row]) -> str:
    """The table, between its markers."""
    lines = [f"Measured on {headline(machine, size)}:", ""]
    lines += ["| What | Size | Here | Beside | Ratio | It misses / flips |", "|---|---|--:|---|--:|--:|"]
    lines += [f"| {r.what} | {r.size} | {r.ours} | {r.beside} | {r.ratio:.2f} | {r.missed} |" for r in rows]
    return "\n".join([BEGIN, *lines, END])


def check(readme: Path) -> None:
    """End the run unless the file has the markers, once."""
    if len(PLACE.findall(readme.read_text())) != 1:
        raise SystemExit(f"{readme} must have the markers {BEGIN} and {END} once")


def rewrite(readme: Path, table: str) -> None:
    """Put the table in the place of the one that stands between the markers."""
    check(readme)
    readme.write_text(PLACE.sub(lambda _: table, readme.read_text()))


def draw(path: Path, machine: Mapping[str, Any], size: str, rows: Sequence[Row]) -> None:
    """A bar for each row, from 1 to its ratio: to the left is less."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = {True: "#2a7f9e", False: "#c9773a"}
    lengths = [math.log2(max(row.ratio, 1 / 64)) for row in rows]
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(rows)), lengths, color=[colours[row.peer] for row in rows])
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        place, side = ((4, 0), "left") if length >= 0 else ((-4, 0), "right")
        axes.annotate(f"{row.ratio:.2f}", (length, i), place, textcoords="offset points", va="center", ha=side)
    axes.set_yticks(range(len(rows)), [f"{row.what}, {row.size}\nbeside {row.beside}" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=1)
    first, last = math.floor(min(lengths)) - 1, math.ceil(max(lengths)) + 1
    ticks = range(first, last + 1, -(-(last - first) // 10))
    axes.set_xlim(first, last)
    axes.set_xticks(ticks, [f"{2.0**tick:.4g}" for tick in ticks])
    axes.set_xlabel("semdedup over what it stands beside; less is better")
    axes.legend([Patch(color=colours[peer]) for peer in colours], ["beside a peer", "beside the machine"])
    figure.suptitle(headline(machine, size), fontsize=9)
    figure.savefig(path, dpi=150)
