"""From a decoded frame to the picture that a player shows: upright, square pixels, even sides, 8 bits, limited range.

Whatever looks at a picture (clips, embeddings, previews, the report) gets it from here, so that all see the same. The
reference is what the ``ffmpeg`` program shows of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange

from semdedup.video.quarantine import pyav_errors

PIXELS = "yuv420p"
"""How every picture is stored, of limited range."""

MATRICES = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
"""What FFmpeg computes with, by the tag of a frame's matrix (ISO/IEC 23091-2). For all others it takes BT.601."""

RESERVED, UNSPECIFIED = (0, 3), 2
"""Tags of primaries and transfer characteristics that FFmpeg refuses to compute with, and the one for none."""

TRANSFERS = {
    **{1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100", 10: "log316"},
    **{11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084"},
    **{17: "smpte428", 18: "arib-std-b67"},
}
"""Names of transfer characteristics, by their tag (ISO/IEC 23091-2), as FFmpeg prints them."""

HIGH_DYNAMIC_RANGE = ("smpte2084", "arib-std-b67")
"""PQ and HLG."""

TO_SDR = "out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709:out_range=tv:intent=perceptual"
"""Options of FFmpeg's filter `scale` (FFmpeg 8) that map high dynamic range to BT.709, highlights with their detail."""

EXACT = "accurate_rnd+full_chroma_int+full_chroma_inp"
"""Colours to a grey level, where FFmpeg's fast ways are up to three off."""

MOST_STRETCH = 16
"""Pixels that are wider or higher than this by their sides' ratio are damage, and are taken as square."""

Orientation = tuple[int, int, int, int]
UPRIGHT: Orientation = (1, 0, 0, 1)

FILTERS: dict[tuple[int, ...], tuple[str, ...]] = {
    UPRIGHT: (),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, 1, -1, 0): ("transpose=clock",),
    (0, -1, 1, 0): ("transpose=cclock",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}
"""Filters that make a frame upright, by the signs of a, b, c, d of its display matrix, which moves the pixel (x, y) to
(a x + c y, b x + d y); see `matrix_structure` in ISO/IEC 14496-12, 6.2.2. These are the eight orientations."""


TURNS = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
"""Orientations by the angle of a display matrix that mirrors nothing, in degrees counter-clockwise."""


def orientation(display_matrix: Sequence[int] | None) -> Orientation:
    """The orientation that a display matrix of nine numbers tells: a key of `FILTERS`.

    Entries below a fiftieth of the largest count as 0: that is an angle of a degree. Other angles are damage: upright.

    >>> FILTERS[orientation([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30])]
    ('transpose=clock',)
    """
    if display_matrix is not None and len(display_matrix) == 9:
        a, b, c, d = (display_matrix[i] for i in (0, 1, 3, 4))
        small = max(abs(a), abs(b), abs(c), abs(d)) / 50
        found = tuple(0 if abs(value) <= small else 1 if value > 0 else -1 for value in (a, b, c, d))
        if found in FILTERS:
            return found  # type: ignore[return-value]
    return UPRIGHT


def square_size(width: int, height: int, pixel_aspect: Fraction, max_pixels: int) -> tuple[int, int]:
    """Width and height of a frame whose pixels are made square: the side that is squeezed grows, so that none is lost.

    Where that is more than `max_pixels` the other side shrinks instead. The side that changes becomes even.

    >>> square_size(720, 576, Fraction(64, 45), 10**6), square_size(180, 180, Fraction(9, 16), 10**6)
    ((1024, 576), (180, 320))
    """
    if pixel_aspect == 1 or not Fraction(1, MOST_STRETCH) <= pixel_aspect <= MOST_STRETCH:
        return width, height
    stretched, squeezed = width * pixel_aspect, height / pixel_aspect
    if pixel_aspect > 1:
        fits = stretched * height <= max_pixels
        return (_even(stretched), height) if fits else (width, _even(squeezed))
    fits = width * squeezed <= max_pixels
    return (width, _even(squeezed)) if fits else (_even(stretched), height)


def _even(side: Fraction) -> int:
    return max(2, 2 * round(side / 2))


def _even_below(side: int) -> int:
    """A side without the pixel that is odd: chroma has half the resolution."""
    return max(2, side & ~1)


class PictureMaker:
    """Makes pictures of the frames of one video.

    Args:
        pixel_aspect: width of a pixel by its height.
        max_pixels: most pixels of a picture whose pixels are made square.
        to_sdr: whether high dynamic range is mapped to the range of BT.709.
    """

    def __init__(self, pixel_aspect: Fraction, max_pixels: int, to_sdr: bool) -> None:
        self.pixel_aspect, self.max_pixels, self.to_sdr = pixel_aspect, max_pixels, to_sdr
        self._graphs: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self._orientations: dict[tuple[int, int, int], Orientation] = {}

    def size(self, frame: Any) -> tuple[int, int]:
        """Width and height of the picture of a frame."""
        width, height = square_size(frame.width, frame.height, self.pixel_aspect, self.max_pixels)
        if self.is_turned(frame):
            width, height = height, width
        return _even_below(width), _even_below(height)

    def transfer(self, frame: Any) -> str:
        """Transfer characteristics of the picture of a frame, by their name; empty where they are not known."""
        found = transfer_of(frame)
        return "bt709" if self.to_sdr and found in HIGH_DYNAMIC_RANGE else found

    def is_turned(self, frame: Any) -> bool:
        """Whether a frame is stored with its sides exchanged."""
        return self._orientation_of(frame)[0] == 0

    def picture(self, frame: Any) -> Any:
        """The picture of a frame: a frame of `PIXELS`. It is the same one where there is nothing to do.

        Raises:
            VideoFault: ``decode_error``.
        """
        with pyav_errors():
            for name in ("color_trc", "color_primaries"):
                if getattr(frame, name) in RESERVED:
                    setattr(frame, name, UNSPECIFIED)
            if self.to_sdr and transfer_of(frame) in HIGH_DYNAMIC_RANGE:
                frame = self._filtered("sdr", frame, [f"scale={TO_SDR}", f"format={PIXELS}"])
            filters = FILTERS[self._orientation_of(frame)]
            made = self._in_our_pixels(frame)
            if filters:
                made = self._filtered("upright", made, filters)
            width, height = _even_below(made.width), _even_below(made.height)
            if (width, height) != (made.width, made.height):
                made = self._filtered("even", made, [f"crop={width}:{height}:0:0"])
            return made

    def rgb(self, picture: Any, size: tuple[int, int] | None, short_side: int) -> np.ndarray:
        """A picture as (h, w, 3) uint8 RGB of this (height, width), or with its aspect and at most this shorter side.

        Raises:
            VideoFault: ``decode_error``.
        """
        size = size or _size_of(picture, short_side, False)
        matrix = MATRICES.get(picture.colorspace, "bt601")
        flags = f"{_kernel(picture, size)}+{EXACT}"
        scale = f"scale={size[1]}:{size[0]}:flags={flags}:in_range=tv:out_range=pc:in_color_matrix={matrix}"
        with pyav_errors():
            found: np.ndarray = self._filtered(f"rgb {size}", picture, [scale, "format=rgb24"]).to_ndarray()
        return found

    def luma(self, picture: Any, size: tuple[int, int] | None, short_side: int, enlarged: bool) -> np.ndarray:
        """The luma of a picture as (h, w) uint8 of all values, of this (height, width), or as `Sampling` has it.

        Raises:
            VideoFault: ``decode_error``.
        """
        size = size or _size_of(picture, short_side, enlarged)
        scale = f"scale={size[1]}:{size[0]}:flags={_kernel(picture, size)}+{EXACT}:in_range=tv:out_range=pc"
        with pyav_errors():
            found: np.ndarray = self._filtered(f"luma {size}", picture, [scale, "format=gray"]).to_ndarray()
        return found

    def grey(self, picture: Any, size: tuple[int, int]) -> np.ndarray:
        """The luma of a picture as (h, w) uint8 of all values, of this (height, width).

        Raises:
            VideoFault: ``decode_error``.
        """
        scale = f"scale={size[1]}:{size[0]}:flags=area:in_range=tv:out_range=pc"
        with pyav_errors():
            found: np.ndarray = self._filtered(f"grey {size}", picture, [scale, "format=gray"]).to_ndarray()
        return found

    def _orientation_of(self, frame: Any) -> Orientation:
        kind = frame.rotation, frame.width, frame.height
        # Once: a frame whose side data were looked at waits for the garbage collector.
        if kind not in self._orientations:
            try:
                found = frame.side_data.get(SideData.DISPLAYMATRIX)
                matrix = None if found is None else np.frombuffer(bytes(found), dtype=np.int32).tolist()
                self._orientations[kind] = orientation(matrix)
            except ValueError:  # PyAV knows no name for some side data, and then gives none; the angle it does
                self._orientations[kind] = TURNS.get(frame.rotation % 360, UPRIGHT)
        return self._orientations[kind]

    def _in_our_pixels(self, frame: Any) -> Any:
        width, height = square_size(frame.width, frame.height, self.pixel_aspect, self.max_pixels)
        width, height = max(2, width), max(2, height)
        is_rgb, is_full = frame.format.is_rgb or frame.format.has_palette, _is_full(frame)
        if (frame.format.name, is_full, frame.width, frame.height) == (PIXELS, False, width, height):
            return frame
        matrix = MATRICES.get(frame.colorspace, "bt601")
        colours = "out_color_matrix=bt709" if is_rgb else f"in_color_matrix={matrix}:out_color_matrix={matrix}"
        ranges = f"in_range={'pc' if is_rgb or is_full else 'tv'}:out_range=tv"
        scale = f"scale={width}:{height}:flags=bicubic+{EXACT}:{ranges}:{colours}"
        made = self._filtered("ours", frame, [scale, f"format={PIXELS}"])
        if not is_rgb:
            made.colorspace = frame.colorspace  # no matrix was applied
        return made

    def _filtered(self, what: str, frame: Any, filters: Sequence[str]) -> Any:
        """A frame after some filters; their graph is kept as long as frames are alike."""
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, *filters)
        if what not in self._graphs or self._graphs[what][0] != kind:
            self._graphs[what] = kind, graph_of(frame, filters)
        graph = self._graphs[what][1]
        graph.push(frame)
        return graph.pull()


def _size_of(picture: Any, short_side: int, enlarged: bool) -> tuple[int, int]:
    """Height and width of a picture whose aspect is kept, with at most this shorter side, or with just this one."""
    factor = short_side / min(picture.width, picture.height)
    factor = factor if enlarged else min(1.0, factor)
    return max(1, round(picture.height * factor)), max(1, round(picture.width * factor))


def _kernel(picture: Any, size: tuple[int, int]) -> str:
    """How FFmpeg scales a picture to this (height, width)."""
    return "area" if size[0] < picture.height or size[1] < picture.width else "bicubic"


def graph_of(frame: Any, filters: Sequence[str]) -> Any:
    """A graph of filters, each ``name`` or ``name=options``, for frames like this one."""
    graph = av.filter.Graph()
    graph.threads = 1  # the work is parallel over videos
    base = frame.time_base or Fraction(1, 1000)
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)]
    for text in filters:
        name, _, options = text.partition("=")
        nodes.append(graph.add(name, options) if options else graph.add(name))
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def transfer_of(frame: Any) -> str:
    """Name of the transfer characteristics that a frame is tagged with; empty where it is not."""
    return TRANSFERS.get(frame.color_trc, "")


def _is_full(frame: Any) -> bool:
    """Whether luma takes all values: as FFmpeg has it, grey pictures do unless they say otherwise."""
    if frame.color_range == ColorRange.MPEG:
        return False
    is_grey = len(frame.format.components) < 3 and not frame.format.has_palette
    return bool(frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or is_grey)
