"""FFmpeg's own picture of a video, from its program: what a clip is compared with. It makes the sources as well.

A source shows flat colours with soft edges, a gradient that has a texture, and a square that moves, on no axis of which
it is like its mirror image. So an error of colour shows in the insides of the flat colours, where neither scaling nor
encoding changes much, and an error of shape or orientation everywhere.
"""

import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from scipy.ndimage import uniform_filter

PROGRAM = imageio_ffmpeg.get_ffmpeg_exe()
TIMEOUT_S = 60
ONE_CORE = ("-filter_threads", "1", "-threads", "1")

EXACTLY = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
"""How the program converts: with all digits, and every pixel with a colour of its own."""

COLOURS = (
    *((255, 255, 255), (235, 200, 40), (60, 190, 200), (40, 170, 60)),
    *((128, 128, 128), (220, 130, 60), (200, 60, 190), (50, 60, 200)),
    *((0, 0, 0), (64, 64, 64), (190, 40, 40), (20, 20, 20)),
)
"""Of the patches, row by row: saturated ones, greys, and both ends of the range."""

GRID = (3, 4)
"""Rows and columns of the patches. They fill the upper three quarters of a picture."""

SOFT = 13
"""Pixels over which one patch fades into the next. What chroma of half the resolution loses stays small so."""

ORIENTATIONS = {
    "upright": (1, 0, 0, 1),
    "turned_90": (0, 1, -1, 0),
    "turned_180": (-1, 0, 0, -1),
    "turned_270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}
"""What a player does to the stored picture: a, b, c and d of the display matrix, x' = a x + c y and y' = b x + d y."""


def ffmpeg(*arguments: Any) -> bytes:
    """Run the program; what it writes to ``pipe:1``. It answers no question and takes one core."""
    command = [PROGRAM, "-nostdin", "-hide_banner", "-v", "error", "-y", *ONE_CORE, *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr.decode(errors='replace')}"
    return done.stdout


def own_pictures(path: Path, size: tuple[int, int], *, crop: bool = False) -> np.ndarray:
    """The frames of a video, upright, as the program shows them at this width and height: (t, h, w, 3) uint8.

    Of several tracks it is the one that the program takes. With `crop` what is beyond the size is cut off at the right
    and at the bottom.
    """
    width, height = size
    cut = f"crop={width}:{height}:0:0:exact=1," if crop else ""
    filters = f"{cut}scale={width}:{height}:{EXACTLY},setsar=1,format=rgb24"
    raw = ("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
    return np.frombuffer(ffmpeg("-i", path, "-vf", filters, *raw), dtype=np.uint8).reshape(-1, height, width, 3)


def drawn(n_frames: int, size: tuple[int, int], grey: bool = False) -> np.ndarray:
    """The frames of a source, upright: (t, h, w, 3) uint8. With `grey` they have no colour."""
    width, height = size
    top = height * 3 // 4
    still = np.zeros((height, width, 3))
    for (across, down), colour in zip(_corners(size), COLOURS, strict=True):
        still[down[0] : down[1], across[0] : across[1]] = np.mean(colour) if grey else colour
    still[:top] = uniform_filter(still[:top], size=(SOFT, SOFT, 1), mode="nearest")
    y, x = np.mgrid[0 : height - top, 0:width]
    band = np.stack([30 + 200 * x / width, 60 + 120 * y / (height - top), 220 - 160 * x / width], axis=-1)
    still[top:] = band.mean(axis=-1, keepdims=True) if grey else band
    frames = []
    for i in range(n_frames):
        frame = still.copy()
        frame[top:] += (6 * np.sin(2 * np.pi * (x / 9 + i / n_frames)) * np.cos(2 * np.pi * y / 11))[:, :, None]
        side = height // 6
        left, upper = width // 8 + 2 * i, top + side // 4
        frame[upper : upper + side, left : left + side] = 245
        frames.append(frame)
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def _corners(size: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Columns and rows at which each patch begins and ends in pictures of a size."""
    (width, height), (rows, columns) = size, GRID
    across = [width * column // columns for column in range(columns + 1)]
    down = [height * 3 // 4 * row // rows for row in range(rows + 1)]
    return [
        ((across[column], across[column + 1]), (down[row], down[row + 1]))
        for row in range(rows)
        for column in range(columns)
    ]


def insides(pictures: np.ndarray) -> np.ndarray:
    """The mean colours of the inner parts of the patches, whatever the size of the pictures: (n, 3)."""
    found = []
    for (left, right), (upper, lower) in _corners((pictures.shape[2], pictures.shape[1])):
        across, down = (right - left) // 4, (lower - upper) // 4
        part = pictures[:, upper + down : lower - down, left + across : right - across]
        found.append(part.mean(axis=(0, 1, 2)))
    return np.array(found)


@dataclass(frozen=True)
class Difference:
    """How far pictures are from others, in grey levels of 255.

    Attributes:
        frame: mean of the absolute differences over all pixels, in the channel where it is largest.
        patches: mean of those inside a flat patch, in the patch where it is largest.
    """

    frame: float
    patches: float


def difference(found: np.ndarray, expected: np.ndarray) -> Difference:
    """Compare pictures of one shape, (t, h, w, 3) uint8."""
    assert found.shape == expected.shape, f"{found.shape}, expected {expected.shape}"
    apart = np.abs(found.astype(np.int16) - expected)
    return Difference(
        round(float(apart.mean(axis=(0, 1, 2)).max()), 2), round(float(insides(apart).mean(axis=1).max()), 2)
    )


X264 = ("-c:v", "libx264", "-qp", "0", "-preset", "ultrafast")
FFV1 = ("-c:v", "ffv1")
RAW = ("-c:v", "rawvideo")
RANGES = ("tv", "pc")
MATRICES = ("bt709", "smpte170m", "bt470bg", "bt2020nc", "smpte240m", "fcc", "")
UNTOLD = ("",)
PALETTE = "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=none"


@dataclass(frozen=True)
class Store:
    """A way to store pixels.

    Attributes:
        pix_fmt: as the encoder takes them.
        ending: of the file, which tells the container.
        codec: the encoder with its options: without loss, or nearly so.
        kind: ``yuv``, ``rgb`` or ``grey``.
        ranges: that it has: ``tv``, ``pc``, or empty: it tells none.
        matrices: that it has, by FFmpeg's names, or empty: it tells none.
        filters: of the program, in place of a conversion to `pix_fmt`.
    """

    pix_fmt: str
    ending: str = "mp4"
    codec: tuple[str, ...] = X264
    kind: str = "yuv"
    ranges: tuple[str, ...] = RANGES
    matrices: tuple[str, ...] = MATRICES
    filters: str = ""

    @property
    def name(self) -> str:
        """As tests are named: pixel format, codec, container."""
        return f"{self.pix_fmt}-{self.codec[1].removeprefix('lib')}-{self.ending}"


def _untagged(pix_fmt: str, ending: str, *codec: str, range: str = "", kind: str = "yuv", filters: str = "") -> Store:
    return Store(pix_fmt, ending, codec, kind, (range,), UNTOLD, filters)


STORES = (
    Store("yuv420p", ranges=("tv",)),
    Store("yuvj420p", ranges=("pc",)),
    *(Store(pix_fmt) for pix_fmt in ("yuv422p", "yuv444p")),
    *(Store(pix_fmt) for pix_fmt in ("yuv420p10le", "yuv422p10le", "yuv444p10le")),
    *(Store(pix_fmt, "mkv", FFV1) for pix_fmt in ("yuv411p", "yuv410p", "yuv440p", "yuva420p", "yuva444p10le")),
    *(Store(pix_fmt, "mkv", FFV1) for pix_fmt in ("yuv422p12le", "yuv420p16le")),
    Store("yuv420p10le", "mp4", ("-c:v", "libx265", "-x265-params", "lossless=1:log-level=none")),
    Store("yuv420p", "webm", ("-c:v", "libvpx-vp9", "-lossless", "1", "-deadline", "realtime")),
    Store("yuv422p", "mkv", ("-c:v", "huffyuv")),
    Store("yuv422p10le", "mov", ("-c:v", "prores", "-q:v", "1"), ranges=("tv",), matrices=("bt709", "bt2020nc", "")),
    Store("yuv420p", "mpg", ("-c:v", "mpeg2video", "-q:v", "1"), ranges=("tv",)),
    Store("yuv420p", "avi", ("-c:v", "utvideo"), ranges=UNTOLD, matrices=("bt709", "smpte170m")),
    _untagged("nv12", "avi", *RAW),
    _untagged("yuyv422", "avi", *RAW),
    _untagged("uyvy422", "mov", *RAW),
    _untagged("yuv422p10le", "mov", "-c:v", "v210"),
    _untagged("yuv420p", "mp4", "-c:v", "mpeg4", "-q:v", "1"),
    _untagged("yuv410p", "mov", "-c:v", "svq1", "-q:v", "1"),
    _untagged("yuvj420p", "mov", "-c:v", "mjpeg", "-q:v", "1", range="pc"),
    _untagged("yuvj422p", "avi", "-c:v", "mjpeg", "-q:v", "1", range="pc"),
    _untagged("yuvj444p", "avi", "-c:v", "mjpeg", "-q:v", "1", range="pc"),
    *(Store(pix_fmt, "mkv", FFV1, "grey", (*RANGES, ""), UNTOLD) for pix_fmt in ("gray", "gray10le", "gray12le")),
    Store("gray", "mp4", X264, "grey", ("pc",), UNTOLD),
    *(_untagged(pix_fmt, "mov", "-c:v", "png", kind="grey", range="pc") for pix_fmt in ("gray", "gray16be", "ya8")),
    _untagged("bgr24", "mp4", "-c:v", "libx264rgb", "-qp", "0", "-preset", "ultrafast", kind="rgb"),
    *(_untagged(pix_fmt, "mov", "-c:v", "png", kind="rgb") for pix_fmt in ("rgb24", "rgba", "rgb48be")),
    *(_untagged(pix_fmt, "mov", "-c:v", "qtrle", kind="rgb") for pix_fmt in ("rgb24", "argb")),
    *(_untagged(pix_fmt, "mkv", *FFV1, kind="rgb") for pix_fmt in ("gbrp", "gbrp10le", "bgra")),
    _untagged("bgr24", "avi", *RAW, kind="rgb"),
    _untagged("bgr24", "avi", "-c:v", "huffyuv", kind="rgb"),
    _untagged("pal8", "gif", "-c:v", "gif", kind="rgb", filters=PALETTE),
    _untagged("pal8", "mov", "-c:v", "png", kind="rgb", filters=PALETTE),
)
"""Pixel formats of cameras, screens, editors and archives, each in a codec and a container that has it."""

STORE = {store.name: store for store in STORES}


@dataclass(frozen=True)
class Source:
    """A video of `drawn` pictures.

    Attributes:
        store: how its pixels are stored.
        range: what it tells of its range: ``tv``, ``pc``, or empty.
        matrix: of its colours, by FFmpeg's name; empty: not told, for which FFmpeg takes that of BT.601.
        sar: width of a pixel by its height, as stored.
        orientation: what a player does to the stored picture, a key of `ORIENTATIONS`.
        size: width and height in pixels, upright.
        primaries: of its colours; empty: not told.
        transfer: function of its colours; empty: not told.
    """

    store: Store
    range: str = "tv"
    matrix: str = "bt709"
    sar: Fraction = Fraction(1)
    orientation: str = "upright"
    size: tuple[int, int] = (192, 144)
    primaries: str = ""
    transfer: str = ""

    @property
    def aspect(self) -> float:
        """Width by height as a player shows it."""
        pixel = self.sar if ORIENTATIONS[self.orientation][0] else 1 / self.sar
        return float(Fraction(*self.size) * pixel)

    @property
    def grey(self) -> bool:
        """Whether it has no colour."""
        return self.store.kind == "grey"

    @property
    def name(self) -> str:
        """As tests are named."""
        told = (self.store.name, self.range or "no_range", self.matrix or "no_matrix")
        return " ".join((*told, f"{self.sar.numerator}:{self.sar.denominator}", self.orientation))

    def make(self, path: Path, pictures: np.ndarray | None = None, rate: int = 8) -> Path:
        """Write it, with other upright pictures (t, h, w, 3) where some are given, so many a second.

        The name of the file gets the ending of the container.
        """
        if pictures is None:
            pictures = drawn(rate, self.size, self.grey)
        path = path.with_suffix(f".{self.store.ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        matrix = ORIENTATIONS[self.orientation]
        frames = np.stack([as_stored(frame, matrix) for frame in pictures])
        raw = path.with_suffix(".rgb")
        raw.write_bytes(frames.tobytes())
        size = f"{frames.shape[2]}x{frames.shape[1]}"
        ffmpeg(
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", raw),
            *("-vf", ",".join(self._filters()), *self.store.codec, path),
        )
        raw.unlink()
        if matrix != ORIENTATIONS["upright"]:
            _orient(path, matrix)
        return path

    def _filters(self) -> list[str]:
        convert = f"scale={EXACTLY}"
        if self.store.kind != "rgb":
            convert += f":out_color_matrix={self.matrix or 'smpte170m'}:out_range={self.range or 'tv'}"
        return [
            self.store.filters or f"{convert},format={self.store.pix_fmt}",
            f"setparams={':'.join(f'{name}={value}' for name, value in self._told().items())}",
            f"setsar={self.sar.numerator}/{self.sar.denominator}",
        ]

    def _told(self) -> dict[str, str]:
        told = {"color_primaries": self.primaries, "color_trc": self.transfer}
        if self.store.kind != "rgb":
            told |= {"colorspace": self.matrix, "range": self.range}
        return {name: value or "unknown" for name, value in told.items()}


def as_stored(upright: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """The picture (h, w, 3) that a display matrix makes upright."""
    a, b, c, d = matrix
    return np.ascontiguousarray(upright[::d, ::a] if a else upright[::b, ::c].transpose(1, 0, 2))


def _orient(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix into the header of the first track; see ISO/IEC 14496-12, `tkhd`."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(content)
