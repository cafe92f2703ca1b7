"""Processors differ in the instructions that they have, and so in the last bits of products; answers do not."""

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from semdedup import frames, max_similarity

OLDER = {
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3,X86_V4,AVX512_ICL,AVX512_SPR,AVX2,FMA3,AVX512F,AVX512CD,AVX512_SKX",
}
"""BLAS and NumPy of a processor of 2008; names that NumPy does not know it passes over."""


def digests() -> tuple[str, str]:
    """Of what is answered about rows with near-duplicates, and of a plain product of them."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((600, 64)).astype(np.float32)
    rows[200:400] = rows[:200] + rng.standard_normal((200, 64)).astype(np.float32) * np.float32(0.05)
    held = frames.normalize(pd.DataFrame({"id": np.arange(600), "embedding": list(rows)}))
    clusters = frames.assign_clusters(held, rows[:7])
    scores = frames.score_clusters(clusters, "hard")
    unit = np.stack(held["embedding"].to_list())
    told = [clusters[name].to_numpy() for name in ("centroid", "l2_dist_to_cent", "cosine_dist_to_cent")]
    told += [scores[name].to_numpy() for name in ("id", "max_id", "cosine_sim_score")]
    answer = hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in (*told, *max_similarity(unit))))
    return answer.hexdigest(), hashlib.sha256((unit @ unit.T).tobytes()).hexdigest()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of instruction sets of x86")
def test_another_instruction_set_gives_the_same_bits() -> None:
    code = "from tests.test_instruction_sets import digests; print(*digests())"
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, **OLDER, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer, product = digests()
    answer_there, product_there = done.stdout.split()
    assert answer_there == answer
    if "AVX2" in _features():
        assert product_there != product, "nothing was switched off, and nothing was compared"


def _features() -> set[str]:
    about = Path("/proc/cpuinfo")
    return set(about.read_text().upper().split()) if about.exists() else set()
