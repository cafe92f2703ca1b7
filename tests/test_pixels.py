"""Clips, what is embedded, and previews beside FFmpeg's own picture: colour, shape, and which way up."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from semdedup.video.steps.protocol import Sampling
from tests.oracle import (
    ORIENTATIONS,
    STORE,
    STORES,
    Difference,
    Source,
    Store,
    difference,
    drawn,
    insides,
    own_pictures,
)
from tests.videos import clip_path, split

FRAME, PATCHES = 2.5, 2.0
"""Most that a picture may differ from FFmpeg's own, in grey levels: over the frame, and inside of flat patches."""

PREVIEW_FRAME, PREVIEW_PATCHES = 4.5, 3.0
"""The same for previews: WebP at their quality loses up to 3.9 and 1.8 by itself."""

RELATIVE_ASPECT = 0.01
RATE = 8
WHOLE = Sampling(n_frames=RATE, size=None, short_side=4096)
"""All frames of a second, in their own size."""

SARS = tuple(map(Fraction, ("1", "16/9", "8/9", "16/15", "64/45", "4/3")))
TURNED_IN = ("mp4", "mov")
SHAPED_IN = ("mp4", "mov", "mkv")


@dataclass(frozen=True)
class Shown:
    """What became of a source.

    Attributes:
        differences: of the clip and of all that is made beside it from FFmpeg's own picture.
        aspects: width by height of each of them.
    """

    differences: dict[str, Difference]
    aspects: dict[str, float]

    def faults(self, source: Source) -> list[str]:
        """What is not as it has to be, in words."""
        found = []
        for name, apart in self.differences.items():
            frame, patches = (PREVIEW_FRAME, PREVIEW_PATCHES) if name == "preview" else (FRAME, PATCHES)
            if apart.frame > frame or apart.patches > patches:
                found.append(f"{name}: {apart}, at most {frame} and {patches}")
        for name, aspect in self.aspects.items():
            if abs(aspect / source.aspect - 1) > RELATIVE_ASPECT:
                found.append(f"{name}: width by height is {aspect:.4f}, expected {source.aspect:.4f}")
        return found


def read_preview(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))[None]


def sizes(pictures: np.ndarray) -> tuple[int, int]:
    return pictures.shape[2], pictures.shape[1]


def shown(source: Source, folder: Path) -> Shown:
    """Cut a source into one clip, embed the clip, and look at everything."""
    path = source.make(folder / "video", rate=RATE)
    expected = insides(drawn(RATE, source.size, source.grey))
    own = {source.size: own_pictures(path, source.size)}
    assert abs(insides(own[source.size]) - expected).max() < 8, "the source is not what it is meant to be"
    clips, outcome = split(path, folder / "clips", sampling=WHOLE, previews=True)
    assert (outcome.status, len(clips)) == ("done", 1), outcome
    file = clip_path(folder / "clips", clips[0])
    (whole,), _ = split(file, None, plan=None, sampling=WHOLE)
    with av.open(str(file)) as opened:
        stream = opened.streams.video[0]
        size, sar = (stream.width, stream.height), stream.sample_aspect_ratio
    assert sar in (None, 0, 1), f"pixels of a clip are square; those of this are {sar}"
    assert clips[0].frames is not None
    assert whole.frames is not None
    pictures = {
        "clip": own_pictures(file, size),
        "embedded": clips[0].frames,
        "embedded clip": whole.frames,
        "preview": read_preview(file.with_suffix(".webp")),
    }
    differences = {}
    for name, found in pictures.items():
        if sizes(found) not in own:
            own[sizes(found)] = own_pictures(path, sizes(found))
        differences[name] = difference(found, own[sizes(found)][: len(found) if name == "preview" else None])
    aspects = {name: float(Fraction(*sizes(found))) for name, found in pictures.items()}
    return Shown(differences, aspects)


LIKE_OTHERS = {
    *("yuv444p10le-x264-mp4", "yuv440p-ffv1-mkv", "yuv420p16le-ffv1-mkv", "uyvy422-rawvideo-mov", "yuv410p-svq1-mov"),
    *("yuvj444p-mjpeg-avi", "gray-x264-mp4", "gray12le-ffv1-mkv", "gray16be-png-mov", "rgb48be-png-mov"),
    *("argb-qtrle-mov", "gbrp10le-ffv1-mkv", "bgra-ffv1-mkv", "bgr24-huffyuv-avi", "pal8-png-mov"),
}
"""Ways to store pixels that are left to the slow test."""


LARGE = (384, 288)
"""Size of pictures with a palette: where its colours change, chroma of half the resolution loses much."""


def stored(store: Store, range: str, matrix: str) -> Source:
    """A source that is upright and has square pixels."""
    source = Source(store, range, matrix)
    return replace(source, size=LARGE) if store.pix_fmt == "pal8" else source


def covering() -> Iterator[Source]:
    """Most ways to store pixels once, with the other columns going round; then each orientation of the commonest."""
    orientations = [*ORIENTATIONS]
    turned = shaped = 0
    for i, store in enumerate(store for store in STORES if store.name not in LIKE_OTHERS):
        source = stored(store, store.ranges[i % len(store.ranges)], store.matrices[i % len(store.matrices)])
        if store.ending in SHAPED_IN:
            source, shaped = replace(source, sar=SARS[shaped % len(SARS)]), shaped + 1
        if store.ending in TURNED_IN:
            source, turned = replace(source, orientation=orientations[3 * turned % len(orientations)]), turned + 1
        yield source
    for i, orientation in enumerate(orientations):
        yield Source(STORE["yuv420p-x264-mp4"], sar=SARS[i % 2], orientation=orientation)


def everything() -> Iterator[Source]:
    """All ranges and matrices of each way to store pixels; all shapes and orientations of the commonest ways."""
    for store in STORES:
        yield from (stored(store, *told) for told in product(store.ranges, store.matrices))
    commonest = ("yuv420p-x264-mp4", "yuvj420p-x264-mp4", "rgba-png-mov")
    for name, sar, orientation in product(commonest, SARS, ORIENTATIONS):
        if (sar, orientation) != (1, "upright"):
            store = STORE[name]
            yield Source(store, store.ranges[0], store.matrices[0], sar, orientation)


def ids(sources: list[Source]) -> list[str]:
    return [source.name.replace(" ", "-") for source in sources]


COVERING = list(dict.fromkeys(covering()))


@pytest.mark.parametrize("source", COVERING, ids=ids(COVERING))
def test_clips_embeddings_and_previews_show_what_ffmpeg_shows(tmp_path: Path, source: Source) -> None:
    faults = shown(source, tmp_path).faults(source)
    assert not faults


@pytest.mark.slow
def test_every_way_to_store_a_picture_is_shown_as_ffmpeg_shows_it(tmp_path: Path) -> None:
    """Prints the number of cases and the largest difference of each value of each column; see it with ``-s``."""
    sources = list(dict.fromkeys(everything()))

    def measured(number: int) -> Shown | str:
        try:
            return shown(sources[number], tmp_path / str(number))
        except AssertionError as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(measured, range(len(sources))))
    print(table(sources, found))
    faults = {
        source.name: [result] if isinstance(result, str) else result.faults(source)
        for source, result in zip(sources, found, strict=True)
    }
    assert not {name: told for name, told in faults.items() if told}


def table(sources: list[Source], found: list[Shown | str]) -> str:
    """Lines with the number of cases and the largest differences, over the frame and in flat patches."""
    rows: dict[str, list[Shown]] = defaultdict(list)
    for source, result in zip(sources, found, strict=True):
        if isinstance(result, Shown):
            sar = f"{source.sar.numerator}:{source.sar.denominator}"
            columns = ("all", source.store.name, f"range {source.range or 'not told'}")
            for value in (*columns, f"matrix {source.matrix or 'not told'}", f"pixels {sar}", source.orientation):
                rows[value].append(result)
    kinds = ("clip", "embedded", "embedded clip", "preview")
    lines = [f"{'':28}{'cases':>6}" + "".join(f"{kind:>16}" for kind in kinds)]
    for value, results in rows.items():
        worst = ""
        for kind in kinds:
            apart = [result.differences[kind] for result in results]
            worst += f"{max(each.frame for each in apart):8.2f}{max(each.patches for each in apart):8.2f}"
        lines.append(f"{value:28}{len(results):6}{worst}")
    return "\n".join(lines)


def fine_pattern(size: tuple[int, int]) -> np.ndarray:
    """Frames of one grey pattern that scaling by a pixel would blur: (t, h, w, 3) uint8."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    grey = 128 + 40 * np.sin(2 * np.pi * x / 3.3) * np.cos(2 * np.pi * y / 3.7)
    return np.repeat(np.repeat(grey.round().astype(np.uint8)[None, :, :, None], RATE, axis=0), 3, axis=3)


ODD = (
    *(
        Source(STORE["yuv444p-x264-mp4"], size=(193, 145), orientation=name)
        for name in ("upright", "turned_90", "flipped")
    ),
    *(Source(STORE["yuv444p-x264-mp4"], size=size) for size in ((193, 144), (192, 145))),
    Source(STORE["yuv411p-ffv1-mkv"], size=(193, 145)),
    Source(STORE["rgb24-png-mov"], size=(193, 145)),
)


@pytest.mark.parametrize("source", ODD, ids=[f"{s.store.pix_fmt}-{s.size[0]}x{s.size[1]}-{s.orientation}" for s in ODD])
def test_of_odd_sides_a_pixel_is_cut_off_and_the_others_stay(tmp_path: Path, source: Source) -> None:
    path = source.make(tmp_path / "video", fine_pattern(source.size))
    (clip,), _ = split(path, tmp_path / "clips", sampling=WHOLE)
    width, height = source.size[0] & ~1, source.size[1] & ~1
    assert (clip.facts["width"], clip.facts["height"]) == (width, height)
    file = clip_path(tmp_path / "clips", clip)
    found, own = own_pictures(file, (width, height)), own_pictures(path, source.size)
    cut = [own[:, y : y + height, x : x + width] for y in range(2) for x in range(2)]  # from whichever edges
    assert min(difference(found, part).frame for part in cut if part.shape == found.shape) <= FRAME


def colours_of(path: Path) -> dict[str, int]:
    """What the first frame of a video tells of its colours, in FFmpeg's numbers."""
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        names = ("color_range", "colorspace", "color_primaries", "color_trc")
        return {name: int(getattr(frame, name)) for name in names}


BT709, LIMITED, UNTOLD = 1, 1, 2
COLOURS = {
    "sd": Source(STORE["yuv420p-x264-mp4"], "tv", "smpte170m", primaries="smpte170m", transfer="smpte170m"),
    "pal-full": Source(STORE["yuvj420p-x264-mp4"], "pc", "bt470bg", primaries="bt470bg", transfer="bt470bg"),
    "hd": Source(STORE["yuv422p-x264-mp4"], "tv", "bt709", primaries="bt709", transfer="bt709"),
    "pq": Source(STORE["yuv420p10le-x264-mp4"], "tv", "bt2020nc", primaries="bt2020", transfer="smpte2084"),
    "hlg-full": Source(STORE["yuv420p10le-x265-mp4"], "pc", "bt2020nc", primaries="bt2020", transfer="arib-std-b67"),
    "240m": Source(STORE["yuv444p-x264-mp4"], "pc", "smpte240m", primaries="smpte240m", transfer="smpte240m"),
    "rgb-h264": Source(STORE["bgr24-x264rgb-mp4"], "", "", primaries="bt709", transfer="iec61966-2-1"),
    "rgb-p3": Source(STORE["gbrp-ffv1-mkv"], "", "", primaries="smpte432", transfer="iec61966-2-1"),
    "rgb-untold": Source(STORE["rgb24-qtrle-mov"], "", ""),
}


@pytest.mark.parametrize("name", COLOURS)
def test_a_clip_tells_the_colours_that_it_holds(tmp_path: Path, name: str) -> None:
    """Limited range; the matrix of the source, or that of BT.709 for one without; its primaries and transfer."""
    source = COLOURS[name]
    path = source.make(tmp_path / "video")
    told = colours_of(path)
    if source.transfer:
        assert told["color_primaries"] != UNTOLD
        assert told["color_trc"] != UNTOLD
    (clip,), _ = split(path, tmp_path / "clips")
    matrix = BT709 if source.store.kind == "rgb" else told["colorspace"]
    assert colours_of(clip_path(tmp_path / "clips", clip)) == told | {"color_range": LIMITED, "colorspace": matrix}
