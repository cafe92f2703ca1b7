"""What turns clips into vectors, loaded and ready: the last step of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from semdedup.errors import ParameterError
from semdedup.video.steps.frames import Frames
from semdedup.video.steps.protocol import ClipInput, Sampling, StepResult, Wants


@dataclass(frozen=True)
class Embedder:
    """Something that embeds clips, loaded and ready.

    Attributes:
        name: ``dct3d``, ``ce1_224p``, ``iv2``, ``hf``, or the name of a user's function.
        embed: a batch of n clips to (n, d) float32, not necessarily normalised. May be called from several threads.
        n_frames: frames that it looks at, at the midpoints of as many equal parts of the whole clip.
        frame_size: (h, w) that frames are scaled to; None keeps their aspect.
        short_side: where `frame_size` is None, longer frames are scaled down to this shorter side, never up.
        batch_size: clips a batch.
        recommended_eps: `eps` for these embeddings; None where nobody has measured one.
    """

    name: str
    embed: Callable[[Sequence[Frames]], np.ndarray]
    n_frames: int
    frame_size: tuple[int, int] | None
    short_side: int
    batch_size: int
    recommended_eps: float | None = None

    @property
    def wants(self) -> Wants:
        """Frames of each clip."""
        return Wants(Sampling(self.n_frames, self.frame_size, self.short_side))

    def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
        """Vectors of norm 1.

        Raises:
            ParameterError: `embed` does not give one vector for each clip.
        """
        vectors = np.asarray(self.embed([clip.frames for clip in clips if clip.frames is not None]), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(clips):
            raise ParameterError(f"the embedder {self.name} gave {vectors.shape} for {len(clips)} clips; needed (n, d)")
        with np.errstate(all="ignore"):  # a row of zeros or of NaN stays what it is: the dedup sets it aside
            norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
            vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
        return [StepResult(vector=vector) for vector in vectors]
