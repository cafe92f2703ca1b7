"""Videos with planted copies, and where each stands: sources, and what people make of them.

``plant(folder, …)`` writes ``{folder}/videos/{source}.mp4``, the copies ``{source}.{change}.mp4``, and the answers,
``{folder}/planted.json``:

- ``videos``: for each video ``name``, ``source`` (the one that it is made of), ``change`` (``source`` for a source),
  ``duration_s``, ``fps``, ``size`` ([w, h]), and ``pieces``: which stretches of which sources it shows.
  At the moment ``t`` of the video, from ``start_s`` to ``start_s + (source_end_s - source_start_s) / speed``, a piece
  shows its source at ``source_start_s + speed * (t - start_s)``, left and right exchanged where ``mirrored``.
- ``planted``: for each copy, the stretch that it shares with its source: ``change``, ``video_a`` (the source),
  ``start_a_s``, ``end_a_s``, ``video_b`` (the copy), ``start_b_s``, ``end_b_s``, ``speed``, ``mirrored``;
  ``t_a = start_a_s + speed * (t_b - start_b_s)``.
- ``skipped``: copies that were not made, for what they share with the source is below 4 s.

A video that is already there, made the same way, is not made again.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from benchmarks.drawn_films import draw_film
from benchmarks.video_copies import Overlay, filtered, write

SHORTEST_S = 4.0
"""What is shorter is not planted."""

LONGEST_S, WIDEST = 30.0, 480
"""Sources of the given folder are cut and scaled to this."""

AROUND_S = 8.0
"""How much of two other sources an embedded one stands between."""

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
EVEN = "scale=trunc(iw/2)*2:trunc(ih/2)*2"
VERSION = 1
"""Of how videos are made: another number, and all are made anew."""


@dataclass(frozen=True)
class Change:
    """What is done to a source.

    Attributes:
        filters: FFmpeg filters, between ``fps`` before and after; they do not change times.
        fps: frames a second; None: those of the source.
        speed: seconds of the source in a second of the copy.
        cut_s: seconds cut from the head.
        middle: keep the half in the middle alone.
        embedded: put it between the beginnings of two other sources.
        crf: of the encoder; larger is worse.
        logo, subtitle: draw them.
    """

    filters: tuple[str, ...] = ()
    fps: int | None = None
    speed: float = 1.0
    cut_s: float = 0.0
    middle: bool = False
    embedded: bool = False
    crf: int = 26
    logo: bool = False
    subtitle: bool = False

    @property
    def mirrored(self) -> bool:
        return "hflip" in self.filters


HALF = "scale=trunc(iw/4)*2:trunc(ih/4)*2"
CHANGES: dict[str, Change] = {
    "low_quality": Change(crf=40),
    "half_size": Change((HALF,)),
    "crop_5": Change(("crop=iw*0.95:ih*0.95", EVEN)),
    "crop_10": Change(("crop=iw*0.9:ih*0.9", EVEN)),
    "crop_10_corner": Change(("crop=iw*0.9:ih*0.9:0:ih*0.1", EVEN)),
    # 16:9 in a frame of 4:3, and 4:3 in one of 16:9; other shapes get bars of the same share.
    "letterbox": Change(("pad=iw:trunc(ih*2/3)*2:0:(oh-ih)/2",)),
    "pillarbox": Change(("pad=trunc(iw*2/3)*2:ih:(ow-iw)/2:0",)),
    "logo": Change(logo=True),
    "subtitle": Change(subtitle=True),
    "logo_subtitle": Change(logo=True, subtitle=True),
    "brighter": Change(("lutyuv=y=clip((val-16)*1.2+16\\,16\\,235)",)),
    "darker": Change(("lutyuv=y=(val-16)*0.8+16",)),
    "lifted": Change(("lutyuv=y=clip(val+44\\,16\\,235)",)),
    "gamma": Change(("lutyuv=y=gammaval(0.7)",)),
    "fps_30": Change(fps=30),
    "fps_24": Change(fps=24),
    "fps_15": Change(fps=15),
    "faster_5": Change(speed=1.05),
    "slower_5": Change(speed=0.95),
    "mirrored": Change(("hflip",)),
    "shift_1": Change(cut_s=1.0),
    "shift_3.7": Change(cut_s=3.7),
    "middle": Change(middle=True),
    "embedded": Change(embedded=True),
    "combined": Change((HALF,), crf=38, logo=True, cut_s=3.7),
}


@dataclass(frozen=True)
class Piece:
    """A stretch of a source in a video; see the module's text."""

    source: str
    source_start_s: float
    source_end_s: float
    start_s: float = 0.0
    speed: float = 1.0
    mirrored: bool = False

    @property
    def end_s(self) -> float:
        return self.when(self.source_start_s, self.source_end_s)[1]

    def when(self, start_s: float, end_s: float) -> tuple[float, float]:
        """When it shows a stretch of its source."""
        start, end = ((at - self.source_start_s) / self.speed + self.start_s for at in (start_s, end_s))
        return start, end


@dataclass(frozen=True)
class Stretch:
    """What two videos share: ``t_a = start_a_s + speed * (t_b - start_b_s)``, and as wide in a."""

    video_a: str
    start_a_s: float
    end_a_s: float
    video_b: str
    start_b_s: float
    end_b_s: float
    speed: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True)
class Video:
    """A source or a copy; see the module's text."""

    name: str
    source: str
    change: str
    duration_s: float
    fps: float
    size: tuple[int, int]
    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Video":
        """From what stands in ``planted.json``."""
        pieces = tuple(Piece(**piece) for piece in found["pieces"])
        return cls(**{**found, "size": tuple(found["size"]), "pieces": pieces})


def shared_stretches(a: Video, b: Video) -> list[Stretch]:
    """What two different videos share, from the sources that they show."""
    found = []
    for one in a.pieces:
        for other in b.pieces:
            start = max(one.source_start_s, other.source_start_s)
            end = min(one.source_end_s, other.source_end_s)
            if one.source == other.source and start < end:
                one_span, other_span = one.when(start, end), other.when(start, end)
                speed, mirrored = other.speed / one.speed, one.mirrored != other.mirrored
                found.append(Stretch(a.name, *one_span, b.name, *other_span, speed, mirrored))
    return found


def pieces_of(source: Video, change: Change, others: Sequence[Video]) -> tuple[Piece, ...]:
    """What a copy shows, in order."""
    start, end = change.cut_s, source.duration_s
    if change.middle:
        start, end = end / 4, 3 * end / 4
    here = Piece(source.source, start, end, 0.0, change.speed, change.mirrored)
    if not change.embedded:
        return (here,)
    before, after = (Piece(other.source, 0.0, min(AROUND_S, other.duration_s)) for other in others)
    here = Piece(source.source, start, end, before.end_s)
    return before, here, Piece(after.source, 0.0, after.source_end_s, here.end_s)


def _once(path: Path, recipe: dict[str, Any], make: Callable[[], tuple[int, tuple[int, int]]]) -> tuple[int, Any]:
    """Make a video unless it is there, made the same way; tell how many frames it has, and its size."""
    note = path.parent.parent / "made" / f"{path.name}.json"
    recipe = json.loads(json.dumps({**recipe, "version": VERSION}))
    if note.exists() and path.exists():
        found = json.loads(note.read_text())
        if found["recipe"] == recipe:
            return found["frames"], tuple(found["size"])
    frames, size = make()
    note.write_text(json.dumps({"recipe": recipe, "frames": frames, "size": size}))
    return frames, size


def make_drawn(folder: Path, number: int, seconds: float, width: int) -> Video:
    """Draw and write a source. Its shape, pace and frame rate follow from its number."""
    shape = ((9, 16), (3, 4), (9, 16), (9, 21), (16, 9), (9, 16))[number % 6]
    size = (width * shape[0] // shape[1] // 2 * 2, width) if shape[0] < shape[1] else (width * 9 // 8, width * 5 // 8)
    size = size[0] // 2 * 2, size[1] // 2 * 2
    rate, pace = (25, 30, 24)[number % 3], (1.0, 0.5, 0.25, 1.4)[number % 4]
    name = f"drawn{number:02d}"
    path = folder / "videos" / f"{name}.mp4"

    def make() -> tuple[int, tuple[int, int]]:
        pictures = draw_film(number, size, seconds, rate, pace)
        frames = (av.VideoFrame.from_ndarray(one, format="rgb24").reformat(format="yuv420p") for one in pictures)
        return write(path, frames, Fraction(rate), 18, None)

    frames, found = _once(path, {"seed": number, "size": size, "seconds": seconds, "pace": pace, "rate": rate}, make)
    return _source(name, frames, Fraction(rate), found)


def make_given(folder: Path, given: Path) -> Video:
    """Write a video of the given folder as a source: its first 30 s, 480 pixels wide at most, at a steady rate."""
    with av.open(str(given)) as container:
        rate = Fraction(container.streams.video[0].average_rate or 25).limit_denominator(1001)
    path = folder / "videos" / f"{given.stem}.mp4"
    filters = (f"fps={rate}", f"scale=trunc(min(iw\\,{WIDEST})/2)*2:-2")
    recipe = {"given": given.name, "bytes": given.stat().st_size, "filters": filters, "longest_s": LONGEST_S}
    frames, size = _once(path, recipe, lambda: write(path, filtered(given, 0, LONGEST_S, filters), rate, 18, None))
    return _source(given.stem, frames, rate, size)


def _source(name: str, frames: int, rate: Fraction, size: tuple[int, int]) -> Video:
    seconds = float(frames / rate)
    return Video(f"{name}.mp4", name, "source", seconds, float(rate), size, (Piece(name, 0.0, seconds),))


def make_copy(folder: Path, sources: Mapping[str, Video], name: str, change_name: str) -> Video | None:
    """Make a copy of a source; None: what it would share with the source is too short."""
    change, source, names = CHANGES[change_name], sources[name], list(sources)
    at = names.index(name)
    pieces = pieces_of(source, change, [sources[names[(at + step) % len(names)]] for step in (-1, 1)])
    here = next(piece for piece in pieces if piece.source == name)
    if here.source_end_s - here.source_start_s < SHORTEST_S:
        return None
    rate = Fraction(change.fps or source.fps).limit_denominator(1001)
    path = folder / "videos" / f"{name}.{change_name}.mp4"
    width, height = source.size
    fit = f"scale={width}:{height}:force_original_aspect_ratio=decrease", f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2"

    def frames() -> Iterator[av.VideoFrame]:
        for piece in pieces:
            times = (f"setpts=PTS/{change.speed}",) if change.speed != 1 else ()
            rated = (f"fps={rate}",) if times or change.fps or change.embedded else ()
            shape = fit if change.embedded and piece.source != name else ()
            given = folder / "videos" / sources[piece.source].name
            yield from filtered(
                given, piece.source_start_s, piece.source_end_s, (*times, *rated, *shape, *change.filters)
            )

    def make() -> tuple[int, tuple[int, int]]:
        draw = Overlay(change.logo, change.subtitle, at).draw if change.logo or change.subtitle else None
        return write(path, frames(), rate, change.crf, draw)

    facts = [asdict(sources[piece.source]) for piece in pieces]
    recipe = {"change": asdict(change), "pieces": [asdict(piece) for piece in pieces], "sources": facts}
    count, size = _once(path, recipe, make)
    return Video(path.name, name, change_name, float(count / rate), float(rate), size, pieces)


def plant(
    folder: Path, drawn: Sequence[float], width: int, changes: Sequence[str], given: Path | None, verbose: bool = False
) -> dict[str, Any]:
    """Write sources, their copies and the answers; give the answers.

    Args:
        folder: where.
        drawn: how long each drawn source is.
        width: of drawn sources.
        changes: names of `CHANGES`.
        given: a folder whose videos are sources, too. No two of them may show the same.
        verbose: print what is made.
    """
    for name in ("videos", "made"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in given.iterdir() if path.suffix.lower() in SUFFIXES) if given else []
    if len({path.stem for path in files}) < len(files):
        raise SystemExit(f"videos in {given} must differ in their names without ending")
    with ProcessPoolExecutor(2) as pool:
        wanted = [pool.submit(make_drawn, folder, number, seconds, width) for number, seconds in enumerate(drawn)]
        wanted += [pool.submit(make_given, folder, path) for path in files]
        sources = {video.source: video for video in (each.result() for each in wanted)}
        if verbose:
            print(f"{len(sources)} sources, {sum(video.duration_s for video in sources.values()):.0f} s", flush=True)
        made: list[Video] = []
        skipped: list[dict[str, str]] = []
        answers: dict[str, Any] = {}
        for change in changes:
            copies = [pool.submit(make_copy, folder, sources, name, change) for name in sources]
            found = [each.result() for each in copies]
            made += [copy for copy in found if copy is not None]
            skipped += [
                {"change": change, "source": name} for name, copy in zip(sources, found, strict=True) if copy is None
            ]
            if verbose:
                print(f"  {change}: {sum(copy is not None for copy in found)} copies", flush=True)
            answers = _answers(folder, sources, made, skipped)
    return answers


def _answers(
    folder: Path, sources: Mapping[str, Video], made: Sequence[Video], skipped: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    planted = []
    for copy in made:
        source = sources[copy.source]
        planted += [{"change": copy.change, **asdict(stretch)} for stretch in shared_stretches(source, copy)]
    videos = [asdict(video) for video in (*sources.values(), *made)]
    answers = {"videos": videos, "planted": planted, "skipped": skipped}
    (folder / "planted.json").write_text(json.dumps(answers, indent=1))
    return answers
