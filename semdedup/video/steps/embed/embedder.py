"""What turns clips into vectors, loaded and ready: the last step of a run."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from semdedup.errors import ClusterError, ParameterError
from semdedup.video.quarantine import EMBED_ERROR, ERRORS_OF_THIS_MACHINE, ClipFault
from semdedup.video.steps.frames import Frames
from semdedup.video.steps.protocol import ClipInput, Sampling, StepResult, Wants

MOST_OF_AN_ERROR = 500
"""Characters of what a function or model says that are kept."""

DEVICE_ERRORS = ("OutOfMemoryError", "AcceleratorError", "CUDARuntimeError")
"""Names of what torch and CuPy raise where a GPU is full or broken; torch before 2.8 says it in a `RuntimeError`."""


@contextlib.contextmanager
def faults_of_clips(what: str, n_clips: int) -> Iterator[None]:
    """Around calls of a user's function or a model, and around nothing else: what they raise is put down to the clips.

    Args:
        what: said before the error.
        n_clips: how many clips they are called with.

    Raises:
        ClipFault: ``embed_error``.
        ClusterError: memory, disk or GPU of this machine failed, and with one clip as well.
    """
    try:
        yield
    except Exception as error:  # theirs may be of any class
        if n_clips == 1 and _is_of_this_machine(error):
            raise ClusterError(
                f"{what}: {error!r}"[:MOST_OF_AN_ERROR] + f" This has to do with the machine, {socket.gethostname()}: "
                "give tasks more memory (fewer threads, --threads-per-worker; a smaller embedding_batch_size), or free "
                "some, and run the same command again: it goes on where it stopped."
            ) from error
        raise ClipFault(EMBED_ERROR, f"{what}: {error!r}"[:MOST_OF_AN_ERROR]) from error


def _is_of_this_machine(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in ERRORS_OF_THIS_MACHINE | {errno.ENOMEM}
    in_words = isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "CUDA out of memory"))
    return isinstance(error, MemoryError) or type(error).__name__ in DEVICE_ERRORS or in_words


@dataclass(frozen=True)
class Embedder:
    """Something that embeds clips, loaded and ready.

    Attributes:
        name: ``dct3d``, ``ce1_224p``, ``iv2``, ``hf``, or the name of a user's function.
        embed: a batch of n clips to (n, d) float32, not necessarily normalised. May be called from several threads, and
            may raise `ClipFault`.
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
            ClipFault: it fails on some, or a vector is not finite.
        """
        vectors = np.asarray(self.embed([clip.frames for clip in clips if clip.frames is not None]), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(clips):
            raise ParameterError(f"the embedder {self.name} gave {vectors.shape} for {len(clips)} clips; needed (n, d)")
        if not np.isfinite(vectors).all():
            raise ClipFault(EMBED_ERROR, f"the embedder {self.name} gave values that are not finite")
        with np.errstate(all="ignore"):  # a row of zeros stays what it is: the dedup sets it aside
            norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
            vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
        return [StepResult(vector=vector) for vector in vectors]
