"""What the tests of `shard` share: folders of small clips, scores for them, and readers of a dataset."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

from semdedup.dedup.names import WORKFLOW, Layout
from semdedup.overlaps.folders import DROP
from semdedup.overlaps.names import OVERLAP_DUPLICATES, STEP
from semdedup.shards.workflow import ShardWorkflow
from semdedup.storage.tables import embedding_column

DIM = 4


def content_of(clip_id: str, most: int = 3000) -> bytes:
    """Bytes that pass for a clip: some hundreds to thousands, a function of the id."""
    seed = int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    return rng.bytes(int(rng.integers(300, most)))


def embedding_of(clip_id: str) -> np.ndarray:
    """A vector that is a function of the id."""
    return np.frombuffer(hashlib.sha256(clip_id.encode()).digest()[: 2 * DIM], np.uint16).astype(np.float32)


def meta_of(clip_id: str) -> dict[str, Any]:
    """What `split` and a captioner know of a clip."""
    return {
        "id": clip_id,
        "video": f"{clip_id[:1]}.mp4",
        "duration_span": [1.5, 3.25],
        "width": 64,
        "windows": [{"start_frame": 0, "qwen_caption": f"about {clip_id} \u00e9\U0001f3ac"}],
    }


def make_clips(root: Path, ids: Iterable[str], metas: bool = True, embeddings: bool = True) -> Path:
    """Write what `split` writes: clips, and if wanted their metadata and embeddings."""
    ids = list(ids)
    (root / "clips").mkdir(parents=True)
    for clip_id in ids:
        (root / "clips" / f"{clip_id}.mp4").write_bytes(content_of(clip_id))
    if metas:
        (root / "metas" / "v0").mkdir(parents=True)
        for clip_id in ids:
            (root / "metas" / "v0" / f"{clip_id}.json").write_text(json.dumps(meta_of(clip_id)))
    if embeddings:
        write_vectors(root / "dct3d_embd_parquet", ids)
    return root


def write_vectors(folder: Path, ids: Sequence[str], n_files: int = 2) -> None:
    """Write embeddings of clips, some row groups a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n_files):
        part = ids[i::n_files]
        rows = np.array([embedding_of(clip_id) for clip_id in part], dtype=np.float32).reshape(len(part), DIM)
        table = pa.table({"id": pa.array(part, pa.string()), "embedding": embedding_column(rows)})
        pq.write_table(table, folder / f"part-{i}.parquet", row_group_size=7)


def score_of(clip_id: str) -> float:
    """A float32 in [0, 1) that is a function of the id."""
    return float(np.float32(hashlib.sha256(b"score" + clip_id.encode()).digest()[0] / 256))


def write_scores(
    root: Path,
    scores: Mapping[Any, float],
    layout: Layout = WORKFLOW,
    n_files: int = 3,
    kind: pa.DataType | None = None,
    extracted: float | None = None,
) -> Path:
    """Write scores as the dedup does, in either layout; with the eps that ids were extracted at on record."""
    ids = list(scores)
    folder = root / layout.scores
    folder.mkdir(parents=True)
    for k in range(n_files):
        part = ids[k::n_files]
        table = pa.table(
            {
                "id": pa.array(part, kind or pa.string()),
                "max_id": pa.array([ids[0]] * len(part), kind or pa.string()),
                "cosine_sim_score": pa.array([scores[i] for i in part], pa.float32()),
            }
        )
        pq.write_table(table, folder / f"cluster_{k}.parquet", row_group_size=11)
    if extracted is not None:
        record_eps(root, extracted, [])
    return root


def write_duplicates(root: Path, ids: Sequence[Any], eps: float | None = None) -> Path:
    """Write a list of ids to drop as the dedup does."""
    (root / "duplicates").mkdir(parents=True)
    pq.write_table(pa.table({"id": pa.array(ids)}), root / "duplicates" / "part-0.parquet")
    if eps is not None:
        record_eps(root, eps, ["duplicates/part-0.parquet"])
    return root


def write_overlap_duplicates(root: Path, ids: Sequence[str], of_run: Mapping[str, Any] | None = None) -> Path:
    """Write which clips go by overlap as `find_overlaps` does, with its record; of a run with its `drop_when`."""
    folder = root / OVERLAP_DUPLICATES
    folder.mkdir(parents=True)
    n = len(ids)
    columns = {"id": pa.array(ids, pa.string()), "video": pa.array(["better.mp4"] * n, pa.string())}
    columns |= {name: pa.array(np.arange(n), pa.float64()) for name in ("start_s", "end_s")}
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    name = f"{OVERLAP_DUPLICATES}/part-0.parquet"
    entry = {"status": "committed", "parameters": {}, "input": {}, "facts": {}}
    steps = {STEP: {**entry, "files": {name: [(root / name).stat().st_size, ""]}}}
    if of_run is not None:
        steps[DROP] = {**entry, "parameters": of_run}
    (root / "_manifest.json").write_text(json.dumps({"format": 2, "steps": steps}))
    return root


def record_eps(root: Path, eps: float, files: Sequence[str]) -> None:
    record = {"status": "committed", "parameters": {"eps": eps, "count_at": []}, "input": {}}
    written = {name: [(root / name).stat().st_size, ""] for name in files}
    steps = {"identify": {**record, "files": written, "facts": {}}}
    (root / "_manifest.json").write_text(json.dumps({"format": 2, "steps": steps}))


def sharder(source: Any, output: Any, **parameters: Any) -> ShardWorkflow:
    """The workflow without progress, with small shards."""
    paths = ("input_semantic_dedup_path", "input_overlaps_path")
    chosen = {name: str(value) if name in paths else value for name, value in parameters.items()}
    return ShardWorkflow(str(source), str(output), **{"verbose": False, "samples_per_shard": 10, **chosen})


def read_manifest(output: Path) -> dict[str, Any]:
    return json.loads((output / "manifest.json").read_bytes())


def read_samples(output: Path, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All samples, in order, as `webdataset` reads them from the shards that the manifest lists."""
    listed = [shard["name"] for shard in read_manifest(output)["shards"]] if names is None else names
    shards = [str(output / name) for name in listed]
    return list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode()) if shards else []


def ids_in(samples: Iterable[Mapping[str, Any]]) -> list[str]:
    return [sample["json"]["id"] for sample in samples]
