"""Pictures through filters, with a logo and subtitles on them, into a file: what copies are made with."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from PIL import Image, ImageDraw, ImageFont


class Overlay:
    """Draws a logo and subtitles on the planes of pictures."""

    def __init__(self, logo: bool, subtitle: bool, seed: int) -> None:
        self.logo, self.subtitle, self.seed = logo, subtitle, seed
        self.size = 0, 0
        self.layers: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def draw(self, planes: np.ndarray, t: float) -> None:
        """Draw on an array of yuv420p, (1.5 h, w) uint8, what is seen at a moment."""
        self.size = planes.shape[1], planes.shape[0] * 2 // 3
        if self.logo:
            self._blend(planes, -1, self._logo)
        if self.subtitle:
            number = int(t / 2)
            self._blend(planes, number, lambda: self._subtitle(number))

    def _blend(self, planes: np.ndarray, key: int, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        width, height = self.size
        if key not in self.layers:
            self.layers[key] = make()
        level, cover = self.layers[key]
        luma = planes[:height]
        luma[:] = luma + cover * (level - luma.astype(np.float32))
        chroma = planes[height:].reshape(2, height // 2, width // 2)
        chroma[:] = chroma + cover[::2, ::2] * (128 - chroma.astype(np.float32))

    def _layers(self) -> tuple[Image.Image, Image.Image]:
        return Image.new("L", self.size, 0), Image.new("L", self.size, 0)

    def _logo(self) -> tuple[np.ndarray, np.ndarray]:
        """A bright disc with a letter, an eighth of the width, in the upper right corner."""
        width, _ = self.size
        level, cover = self._layers()
        side, edge = width // 8, width // 40
        box = (width - edge - side, edge, width - edge, edge + side)
        ImageDraw.Draw(cover).ellipse(box, fill=204)
        ImageDraw.Draw(level).ellipse(box, fill=225)
        font = ImageFont.load_default(side * 0.7)
        ImageDraw.Draw(level).text((width - edge - side * 0.72, edge), "K", fill=40, font=font)
        return np.asarray(level), np.asarray(cover, np.float32) / 255

    def _subtitle(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Two lines of white text with a dark edge, in the lowest fifth."""
        width, height = self.size
        level, cover = self._layers()
        letters = np.random.default_rng([self.seed, number])
        size = max(8.0, height / 14)
        font = ImageFont.load_default(size)
        for line in range(2):
            count = int(letters.integers(18, 34))
            text = "".join(letters.choice(list("etaoinshrdlu  ,"), count))
            middle, edge = (width / 2, height * (0.84 + 0.08 * line)), max(1, round(size / 10))
            for layer, fill, around in ((cover, 255, 255), (level, 235, 16)):
                draw = ImageDraw.Draw(layer)
                draw.text(middle, text, fill, font, "mm", stroke_width=edge, stroke_fill=around)
        return np.asarray(level), np.asarray(cover, np.float32) / 255


def filtered(path: Path, start_s: float, end_s: float, filters: Iterable[str]) -> Iterator[av.VideoFrame]:
    """The pictures of a stretch of a video, after filters, in yuv420p."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        first = f"trim=start={start_s:.6f}:end={end_s:.6f}", "setpts=PTS-STARTPTS"
        nodes: list[Any] = [graph.add_buffer(template=stream)]
        for text in (*first, *filters, "setsar=1", "format=yuv420p"):
            name, _, arguments = text.partition("=")
            nodes.append(graph.add(name, arguments or None))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        for frame in _then_none(container.decode(stream)):
            with contextlib.suppress(EOFError):  # what comes after the end of the stretch is not taken
                graph.vpush(frame)
            try:
                while True:
                    yield graph.vpull()
            except BlockingIOError:
                continue
            except EOFError:
                return


def _then_none(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame | None]:
    yield from frames
    yield None


def write(
    path: Path,
    frames: Iterable[av.VideoFrame],
    fps: Fraction,
    crf: int,
    draw: Callable[[np.ndarray, float], None] | None,
) -> tuple[int, tuple[int, int]]:
    """Encode pictures; tell how many there were, and their size. The file appears when it is whole."""
    unfinished = path.with_name(path.name + ".unfinished")
    count, size = 0, (0, 0)
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream: Any = None
        for frame in frames:
            if stream is None:
                size = frame.width, frame.height
                stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": str(crf)})
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                stream.codec_context.thread_count = 1
            if draw is not None:
                planes = frame.to_ndarray()
                draw(planes, float(count / fps))
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base, frame.pict_type = count, 1 / fps, 0
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    os.replace(unfinished, path)
    return count, size
