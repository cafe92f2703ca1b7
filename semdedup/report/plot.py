"""The curve alone, as a picture: how much of the data remains at each threshold."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from semdedup.errors import ParameterError
from semdedup.extras import pip_install
from semdedup.storage.location import Location

FORMATS = ("png", "svg")


def plot_format(path: str) -> str:
    """The format that the name of a picture means. Raises a `ParameterError` for others than PNG and SVG."""
    ending = PurePath(path).suffix.lower().lstrip(".")
    if ending not in FORMATS:
        raise ParameterError(f"the plot must be a .png or .svg file; got {path!r}")
    return ending


def check_matplotlib() -> None:
    """Raise a `ParameterError` where Matplotlib, which draws the curve, is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ParameterError(f"a plot needs Matplotlib, which is not installed: {pip_install('plot')}")


def draw_curve(curve: Sequence[tuple[float, float]], eps: float | None) -> Any:
    """A Matplotlib figure of (eps, part that remains), with a line at `eps`. No window is opened, no state is kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([x for x, _ in curve], [100 * y for _, y in curve], color="#0b7a5c", linewidth=2)
    if eps is not None:
        axes.axvline(eps, color="#2f5bd3", linewidth=1.2, linestyle="--", label=f"ε = {eps:g}")
        axes.legend(frameon=False)
    axes.set(
        title="Impact of the deduplication threshold on what remains",
        xlabel="deduplication threshold ε (dropped: score ≥ 1 − ε)",
        ylabel="remaining data, %",
        xlim=(0, max(x for x, _ in curve)),
        ylim=(0, 102),
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_plot(target: Location, curve: Sequence[tuple[float, float]], eps: float | None) -> None:
    """Write the figure of `draw_curve` as PNG or SVG, by the ending of the name. Same curve, same bytes."""
    import matplotlib

    kind = plot_format(target.name)
    with matplotlib.rc_context({"svg.hashsalt": "semdedup", "svg.fonttype": "none"}), target.writing() as path:
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        draw_curve(curve, eps).savefig(path, format=kind, metadata=metadata)
