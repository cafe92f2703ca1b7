"""The rules of removal, one beside the other, on rows like real ones: whole runs, inside clusters and across them."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import write_files
from benchmarks.exact import INSIDE, dedup
from benchmarks.modes import N_FILES, WORKERS, beside_the_first, report
from benchmarks.real_like import real_like_rows
from benchmarks.table import Row

EPS = 0.1
ACROSS = f"exact_up_to={EPS:g}"
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"rows": 6_000, "dim": 48, "rounds": 1, "ways": (ACROSS,)},
    "quick": {"rows": 50_000, "dim": 384, "rounds": 1, "ways": (INSIDE, ACROSS)},
    "full": {"rows": 200_000, "dim": 384, "rounds": 2, "ways": (INSIDE, ACROSS)},
}
ALLOWED = {"witness": 1.15, "components": 1.10}
"""Times the whole run with the rule ``any``."""

OPTIONS: dict[str, dict[str, Any]] = {INSIDE: {}, ACROSS: {"exact_up_to": EPS}}


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    found: dict[str, Any] = {"rows": shape["rows"], "dim": shape["dim"], "ways": {}}
    print(f"rules of removal, {shape['rows']:,} × {shape['dim']} like real rows, eps {EPS:g}, {WORKERS} workers")
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
        folder = Path(name)
        write_files(folder / "input", real_like_rows(shape["rows"], shape["dim"]), N_FILES)
        for way in shape["ways"]:
            rules = {
                rule: partial(dedup, folder / "input", eps=EPS, removal=rule, **OPTIONS[way])
                for rule in ("any", *ALLOWED)
            }
            found["ways"][way] = beside_the_first(rules, folder, shape["rounds"])
            print(f"  {way}", *report(found["ways"][way], ALLOWED), sep="\n", flush=True)
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """Both rules beside ``any``, inside clusters and across them."""
    size = f"{found['rows']:,} × {found['dim']}, like real rows"
    return [
        Row(f"removal={rule}, {way}", size, f"{modes[rule]['seconds']:.3g} s", "removal=any", modes[rule]["ratio"])
        for way, modes in found["ways"].items()
        for rule in ALLOWED
    ]
