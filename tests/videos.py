"""Makers of small videos, which PyAV writes, and readers of what was made of them.

The frames of `numbers` say which they are: their blocks are the bits of their index. So a clip can be asked which
frames it holds, after any encoder, and whether they are upright.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from semdedup.video.cut import split_video
from semdedup.video.job import ClipFiles, ClipMade, Outcome, SplitJob, Wanted
from semdedup.video.options import DecodeOptions, Limits, PlanOptions
from semdedup.video.steps.protocol import Sampling

BITS = (3, 4)
"""Rows and columns of the blocks of a numbered frame: 12 bits, the highest first."""

WAVES = 8
"""Lowest frequencies along each side that a texture is made of."""

SECONDS_A_KNOT = 0.5
AUDIO_RATE = 48_000
BEEP_S = 0.1

DCT3D = Sampling(n_frames=16, size=(64, 64), short_side=64)
"""What the embedding `dct3d` looks at."""


def numbers(n_frames: int, size: tuple[int, int] = (64, 48), first: int = 0) -> Iterator[np.ndarray]:
    """Frames (h, w, 3) uint8 of black and white blocks: the bits of 0, 1, 2, …"""
    width, height = size
    rows, columns = np.arange(height) * BITS[0] // height, np.arange(width) * BITS[1] // width
    weights = 1 << np.arange(BITS[0] * BITS[1])[::-1].reshape(BITS)
    for number in range(first, first + n_frames):
        bits = (number & weights) > 0
        yield np.repeat(np.where(bits, 235, 20).astype(np.uint8)[rows][:, columns, None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """The number that a frame of `numbers` shows, whatever its size."""
    grey = frame.astype(float).mean(axis=2) if frame.ndim == 3 else frame.astype(float)
    number = 0
    for rows in np.array_split(grey, BITS[0]):
        for block in np.array_split(rows, BITS[1], axis=1):
            inner = block[
                len(block) // 4 : -(len(block) // 4) or None, block.shape[1] // 4 : -(block.shape[1] // 4) or None
            ]
            number = 2 * number + int(inner.mean() > 127)
    return number


def texture(
    seed: int, n_frames: int, size: tuple[int, int] = (64, 48), rate: float = 25, still: bool = False
) -> Iterator[np.ndarray]:
    """Frames (h, w, 3) uint8 of waves in space that change in time: one seed one video, at any size and frame rate.

    It has a colour of its own. With `still` it does not move.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    knots = rng.normal(size=(2 + int(n_frames / rate / SECONDS_A_KNOT), WAVES, WAVES))
    knots[:, 0, 0] = 0
    colour = rng.uniform(70, 185, size=3)
    down, across = (np.cos(np.pi * np.outer((np.arange(n) + 0.5) / n, np.arange(WAVES))) for n in (height, width))
    for i in range(n_frames):
        knot, part = divmod(0.0 if still else i / rate / SECONDS_A_KNOT, 1)
        waves = (1 - part) * knots[int(knot)] + part * knots[int(knot) + 1]
        grey = down @ waves @ across.T
        grey *= 30 / grey.std()
        yield np.clip(grey[:, :, None] + colour, 0, 255).astype(np.uint8)


def scenes(seeds: Sequence[int], frames_each: Sequence[int], size: tuple[int, int] = (64, 48)) -> Iterator[np.ndarray]:
    """Textures one after the other, with a hard cut between them."""
    return itertools.chain.from_iterable(texture(seed, n, size) for seed, n in zip(seeds, frames_each, strict=True))


def flat(n_frames: int, size: tuple[int, int] = (64, 48), grey: int = 0) -> Iterator[np.ndarray]:
    """Frames of one grey level."""
    width, height = size
    return (np.full((height, width, 3), grey, dtype=np.uint8) for _ in range(n_frames))


def make_video(
    path: Path,
    n_frames: int = 50,
    *,
    pictures: Iterable[np.ndarray] | None = None,
    size: tuple[int, int] = (64, 48),
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    start_pts: int = 0,
    rotation: int = 0,
    audio: str | None = None,
    audio_s: float | None = None,
    beeps_s: Sequence[float] = (),
    gop: int = 12,
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video.

    Args:
        path: whose ending tells the container, unless `container` does.
        n_frames: how many numbered frames, if `pictures` are not given.
        pictures: upright frames (h, w, 3) uint8.
        size: width and height of numbered frames, upright.
        rate: frames a second; the time base is its inverse.
        codec: video encoder.
        pix_fmt: how it stores pixels.
        pts: ticks of `time_base` at which the frames are shown, for variable frame rates.
        time_base: of these ticks.
        start_pts: added to all of them.
        rotation: degrees clockwise by which a player has to turn what is stored. For MP4 and MOV.
        audio: audio encoder; None: no sound.
        audio_s: how long it sounds; None: as long as the video.
        beeps_s: when short tones of 1 kHz begin; silence is between them.
        gop: frames from one key frame to the next.
        options: of the video encoder.
        container_options: of the container.
    """
    rate = Fraction(rate)
    time_base = time_base or 1 / rate
    pictures = numbers(n_frames, size) if pictures is None else pictures
    settings = {"preset": "ultrafast", "crf": "12"} if codec in ("libx264", "libx265") else {}
    if codec == "libx265":
        settings["x265-params"] = "log-level=none"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        video: Any = None
        sound: Any = None
        end_s = 0.0
        for i, upright in enumerate(pictures):
            pixels = np.ascontiguousarray(np.rot90(upright, rotation // 90))
            if video is None:
                video = out.add_stream(codec, rate=rate, options=settings | (options or {}))
                video.height, video.width, video.pix_fmt = *pixels.shape[:2], pix_fmt
                video.codec_context.time_base = time_base
                video.codec_context.gop_size = gop
                video.codec_context.thread_count = 1
                if audio:
                    sound = out.add_stream(audio, rate=AUDIO_RATE, layout="mono")
                    sound.bit_rate = 64_000
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts = (i if pts is None else pts[i]) + start_pts
            frame.time_base = time_base
            end_s = float((frame.pts + (1 / rate / time_base)) * time_base)
            out.mux(video.encode(frame))
        if sound is not None:
            start_s = float(start_pts * time_base)
            for heard in _beeps(start_s, start_s + audio_s if audio_s else end_s, beeps_s):
                out.mux(sound.encode(heard))
            out.mux(sound.encode(None))
        if video is not None:
            out.mux(video.encode(None))
    if rotation:
        _turn(path, rotation)
    return path


def _beeps(start_s: float, end_s: float, beeps_s: Sequence[float]) -> Iterator[av.AudioFrame]:
    clock = np.arange(round(start_s * AUDIO_RATE), round(end_s * AUDIO_RATE))
    times = clock / AUDIO_RATE - start_s
    sounds = np.zeros(len(clock), dtype=bool)
    for beep_s in beeps_s:
        sounds |= (times >= beep_s) & (times < beep_s + BEEP_S)
    wave = np.where(sounds, 20_000 * np.sin(2 * np.pi * 1000 * times), 0).astype(np.int16)
    for i in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, i : i + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), int(clock[i])
        yield frame


def _turn(path: Path, degrees: int) -> None:
    """Write a display matrix into the header of the first track; see ISO/IEC 14496-12, `tkhd`."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = (cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    content[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(content)


def make_sound(path: Path, seconds: float = 2.0, codec: str = "aac", cover: bool = False) -> Path:
    """Write a file that has sound, perhaps with the picture of a cover, and no video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        sound: Any = out.add_stream(codec, rate=AUDIO_RATE, layout="mono")
        if cover:
            picture: Any = out.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            out.start_encoding()
            out.mux(
                picture.encode(av.VideoFrame.from_ndarray(next(numbers(1)), format="rgb24").reformat(format="yuvj420p"))
            )
            out.mux(picture.encode(None))
        for heard in _beeps(0.0, seconds, (0.5,)):
            out.mux(sound.encode(heard))
        out.mux(sound.encode(None))
    return path


def read_frames(path: Path) -> list[tuple[float, np.ndarray]]:
    """Seconds and pixels (h, w, 3) of all frames, as they are stored."""
    with av.open(str(path)) as file:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]


def read_numbers(path: Path) -> list[int]:
    """The numbers that the frames of a video show."""
    return [number_of(pixels) for _, pixels in read_frames(path)]


def read_times(path: Path) -> list[float]:
    """Seconds at which the frames of a video are shown, by the clock of the file."""
    with av.open(str(path)) as file:
        return [frame.time for frame in file.decode(video=0)]


def read_packets(path: Path, kind: str = "video") -> list[bytes]:
    """The packets of the first track of a kind, in the order of the file."""
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(**{kind: 0}) if packet.size]


def read_beeps(path: Path) -> tuple[list[float], float]:
    """Seconds at which tones begin by the clock of the file, and the second at which its sound ends."""
    times, values = [], []
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            wave = np.abs(frame.to_ndarray().astype(float).reshape(frame.layout.nb_channels, -1, order="F")[0])
            wave /= 1.0 if frame.format.is_planar and "flt" in frame.format.name else 32768.0
            times.append(frame.time + np.arange(frame.samples) / frame.sample_rate)
            values.append(wave[: frame.samples])
    time, loud = np.concatenate(times), np.concatenate(values) > 0.2
    found = time[loud]
    begins = np.flatnonzero(np.diff(found, prepend=-1.0) > BEEP_S / 2)
    return found[begins].round(3).tolist(), float(time[-1])


def probe(path: Path) -> dict[str, Any]:
    """What a container tells of its first video track."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        context = stream.codec_context
        return {
            "codec": context.codec.canonical_name,
            "width": context.width,
            "height": context.height,
            "pix_fmt": context.pix_fmt,
            "n_frames": stream.frames,
            "audio": [track.codec_context.codec.canonical_name for track in file.streams.audio],
            "format": file.format.name,
        }


def split_job(path: Path, folder: Path | None, **options: Any) -> SplitJob:
    """What `split_video` is told: clips of one second, encoded by libx264, unless options of the plan or of the job
    say otherwise.
    """
    chosen = {
        "source": str(path),
        "relative_path": path.name,
        "url": str(path),
        "id_scheme": "semdedup",
        "wanted": Wanted(),
        "limits": Limits(),
        "decode": DecodeOptions(),
    }
    if options.get("sampling") is not None:
        chosen["wanted"] = Wanted((options["sampling"],))
    options.pop("sampling", None)
    encoder, previews = options.pop("encoder", "libx264"), options.pop("previews", False)
    chosen["files"] = None if folder is None else ClipFiles(str(folder), encoder, previews)
    chosen |= {name: options.pop(name) for name in list(options) if name in chosen}
    plan = (
        options.pop("plan") if "plan" in options else PlanOptions(**{"duration_s": 1.0, "min_length_s": 0.2} | options)
    )
    return SplitJob(plan=plan, **chosen)  # type: ignore[arg-type]


def split(path: Path, folder: Path | None, **options: Any) -> tuple[list[ClipMade], Outcome]:
    """Cut a video in this process; see `split_job`. Gives the clips and the outcome."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    found = [item for item in split_video(split_job(path, folder, **options)) if item is not None]
    clips = [item for item in found if isinstance(item, ClipMade)]
    assert isinstance(found[-1], Outcome)
    return clips, found[-1]


def clip_path(folder: Path, clip: ClipMade) -> Path:
    """The file of a clip."""
    return folder / f"{clip.facts['id']}.mp4"


def clip_numbers(folder: Path, clips: Iterable[ClipMade]) -> list[list[int]]:
    """The numbers that the frames of each clip show."""
    return [read_numbers(clip_path(folder, clip)) for clip in clips]


def cut_off(path: Path, share: float) -> Path:
    """Keep the first part of a file, as an interrupted download does."""
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    return path


def damage(path: Path, number: int) -> Path:
    """Overwrite one packet of a video with ones; its neighbours stay as they are."""
    packet = read_packets(path)[number]
    content = path.read_bytes()
    assert content.count(packet) == 1
    path.write_bytes(content.replace(packet, b"\xff" * len(packet)))
    return path


def refer_to(path: Path, target: Path) -> Path:
    """Empty a MOV or MP4 and make it tell that its samples stand in another file of the same folder.

    The data reference is a Macintosh alias record; see ``mov_read_dref`` in FFmpeg's ``mov.c``.
    """
    name = str(target).encode() + b"\0" * (len(str(target)) % 2)
    steps = b"\0\1\0\1"  # one level up from the alias, one down to the target
    alias = b"alis" + bytes(4) + bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + steps + bytes(16)
    alias += b"\0\2" + len(name).to_bytes(2, "big") + name + b"\xff\xff\0\0"

    def box(kind: bytes, body: bytes) -> bytes:
        return (8 + len(body)).to_bytes(4, "big") + kind + body

    def rewritten(content: bytes) -> bytes:
        out, start = b"", 0
        while start < len(content):
            end = start + int.from_bytes(content[start : start + 4], "big")
            kind, body = content[start + 4 : start + 8], content[start + 8 : end]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
                body = rewritten(body)
            elif kind == b"dref":
                body = body[:8] + (4 + len(alias)).to_bytes(4, "big") + alias
            elif kind == b"mdat":
                body = bytes(len(body))
            out, start = out + box(kind, body), end
        return out

    path.write_bytes(rewritten(path.read_bytes()))
    return path


class Decoders:
    """Finds the processes below this one that decode a video, which the workers of a local cluster start.

    Example:
        >>> with Decoders(path, signal.SIGKILL) as hit: run(path)
        >>> assert hit.pids
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.signal = str(path), number
        self.pids: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Decoders":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        """Signal the first process that has the video open twice: for its pictures and for its sound."""
        while not self._over.wait(0.001):
            for process in psutil.Process().children(recursive=True):
                if self._opened(process.pid) >= 2:
                    os.kill(process.pid, self.signal)
                    self.pids.append(process.pid)
                    return

    def _opened(self, pid: int) -> int:
        opened = 0
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    opened += os.readlink(entry.path) == self.path
        return opened
