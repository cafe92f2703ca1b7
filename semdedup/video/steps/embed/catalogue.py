"""The models that the embedders are known to load, and what is known of each. The documentation has this table.

Licences are what the models' pages said in November 2026; what counts is the one that comes with the weights. `eps` is
recommended only where somebody has measured it on clips: for another model measure it on yours, with
``semdedup estimate`` and ``semdedup calibrate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semdedup.video.steps.embed.dct3d import RECOMMENDED_EPS

STAND_IN = "stand-in code only: the real code was never loaded"
TINY = "tiny, random weights"


@dataclass(frozen=True)
class KnownModel:
    """A model, and what is known of it.

    Attributes:
        algorithm: what users call the embedder that loads it.
        model: its name; in backquotes where it is the one on https://huggingface.co.
        dims: length of its vectors.
        frames: frames of a clip that it sees, and their size in pixels.
        eps: what is recommended and how it was measured; or that nobody has.
        licence: of the weights.
        tried: what of it was run here. `TINY`: the class of transformers with random weights, against its own forward
            pass.
    """

    algorithm: str
    model: str
    dims: str
    frames: str
    licence: str
    tried: str
    eps: str = "not measured"


KNOWN: tuple[KnownModel, ...] = (
    KnownModel(
        "dct3d",
        "none is needed",
        "384",
        "16 of 64 x 64",
        "that of semdedup",
        "as it is",
        f"{RECOMMENDED_EPS:.3f}: three quarters of the signs agree; `python -m benchmarks overlaps`",
    ),
    KnownModel(
        "cosmos-embed1-224p, -336p, -448p",
        "`nvidia/Cosmos-Embed1-224p`, …",
        "256; 768",
        "8 of 224, 336 or 448",
        "NVIDIA Open Model",
        STAND_IN,
    ),
    KnownModel("internvideo2", "`OpenGVLab/InternVideo2-Stage2_6B`", "as its code", "4 of 224 x 224", "MIT", STAND_IN),
    KnownModel("hf", "`Qwen/Qwen3-VL-Embedding-2B`, -8B", "2048; 4096", "16, 448 high", "Apache-2.0", TINY),
    KnownModel("hf", "`facebook/pe-av-large`, -base, -small", "large: 1024", "16, as its settings", "Apache-2.0", TINY),
    KnownModel("hf", "`google/videoprism-base-f16r288`", "768", "16 of 288 x 288", "Apache-2.0", TINY),
    KnownModel("hf", "`google/videoprism-lvt-base-f16r288`", "768", "16 of 288 x 288", "Apache-2.0", TINY),
    KnownModel("hf", "`facebook/vjepa2-vitl-fpc64-256`", "1024", "64 of 256 x 256", "MIT", TINY),
    KnownModel("hf", "VideoMAE, X-CLIP", "as its settings", "as its settings", "see its page", TINY),
    KnownModel("hf", "SigLIP, SigLIP 2", "768 to 1536", "8, as its settings", "Apache-2.0", TINY),
    KnownModel("hf", "DINOv2", "384 to 1536", "8, as its settings", "Apache-2.0", TINY),
    KnownModel("hf", "DINOv3", "384 to 4096", "8, as its settings", "DINOv3 License", TINY),
    KnownModel("hf", "CLIP, and other image models", "as its settings", "8, as its settings", "see its page", TINY),
    KnownModel(
        "sentence-transformers",
        "any that embeds videos or pictures",
        "as its modules",
        "16 (pictures: 8), 448 high",
        "see its page",
        "Qwen3-VL and DINOv2, tiny, random weights",
    ),
    KnownModel(
        "sscd",
        "SSCD (`sscd_disc_mixup.torchscript.pt`) and its like",
        "512; large: 1024",
        "8 of 320 x 320",
        "MIT",
        "a network of one layer as TorchScript",
        "not measured on clips; its authors: pictures at 0.75 are copies with 90 % precision",
    ),
)
"""In the order of the documentation."""

TITLES = ("`--embedding-algorithm`", "model", "dims", "frames", "eps", "licence", "tried here")


def as_markdown(models: Sequence[KnownModel] = KNOWN) -> str:
    """The table of the documentation, which is made of it whenever that is built."""
    rows = [(m.algorithm, m.model, m.dims, m.frames, m.eps, m.licence, m.tried) for m in models]
    lines = [TITLES, ("---",) * len(TITLES), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
