"""`caption`, and captions in `split`: models of the real classes, tiny and of random weights, made here."""

import json
import socket
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="the extra captions is not installed")
pytest.importorskip("num2words", reason="the extra captions is not installed")
pytest.importorskip("transformers", minversion="5", reason="the extra captions is not installed")
if find_spec("torchvision") is None:
    pytest.skip("the extra captions is not installed", allow_module_level=True)

from benchmarks.tiny_captioners import MODELS, save  # noqa: E402
from semdedup import (  # noqa: E402
    ClusterError,
    InputError,
    OutputConflictError,
    ParameterError,
    ShardWorkflow,
    VideoCaptionWorkflow,
    cli,
)
from semdedup.video.child import Child  # noqa: E402
from semdedup.video.options import CaptionOptions  # noqa: E402
from semdedup.video.steps.caption import models  # noqa: E402
from semdedup.video.steps.caption.captioner import Captioner, CaptionSpec  # noqa: E402
from semdedup.video.steps.caption.shots import Shot  # noqa: E402
from semdedup.video.steps.caption.windows import captions_in  # noqa: E402
from semdedup.video.steps.chain import Clip, StepChain  # noqa: E402
from tests.helpers import NOWHERE, contents  # noqa: E402
from tests.splits import copy_folder, make_folder, make_texture, read_metas, read_rows, read_videos, splitter  # noqa: E402
from tests.videos import make_video  # noqa: E402

pytestmark = pytest.mark.usefixtures("kept_children")
SHORT = {"captioning_max_new_tokens": 6, "captioning_window_size": 8, "captioning_remainder_threshold": 4}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> Any:
        if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "localhost", "::1")):
            raise AssertionError(f"a connection to {address}")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model, made when it is first asked for. Nobody may change it."""
    root = tmp_path_factory.mktemp("models")
    return lambda name: root / name if (root / name).is_dir() else save(name, root / name)


@pytest.fixture(scope="module")
def made(inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a split wrote of two videos of 4 seconds: four clips of 20 frames. Nobody may change it."""
    place = tmp_path_factory.mktemp("split")
    make_folder(place / "in", ("x.mp4", "below/y.mp4"))
    splitter(place / "in", place / "out").run(inside)
    return place / "out"


@pytest.fixture
def clips(made: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be changed."""
    return copy_folder(made, tmp_path / "clips")


def captioner(source: Path, model: Path, **parameters: Any) -> VideoCaptionWorkflow:
    return VideoCaptionWorkflow(str(source), captioning_model=str(model), verbose=False, **SHORT, **parameters)


def loaded(model: Path, **options: Any) -> Captioner:
    spec = CaptionSpec.of(CaptionOptions(model=str(model), **{"max_new_tokens": 8, **options}))
    assert spec is not None
    return spec.load()


def shots(rng: np.random.Generator, *n_frames: int) -> list[Shot]:
    return [Shot(rng.integers(0, 256, (n, 48, 64, 3), dtype=np.uint8), 2.0) for n in n_frames]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_captions_as_transformers_does(
    name: str, folders: Callable[[str], Path], rng: np.random.Generator
) -> None:
    """Alone, in a batch, and by hand: the chat template, the processor and greedy `generate`."""
    step = loaded(folders(name))
    model = step.loaded
    seen = shots(rng, 4, 4, 1, 9)
    found = model.describe(seen, "What is seen?", 8)
    assert all(isinstance(text, str) for text in found), found
    assert model.describe(seen[::-1], "What is seen?", 8) == found[::-1]
    model.one_by_one = False  # as on a GPU: the first two together
    assert model.describe(seen, "What is seen?", 8) == found
    model.one_by_one = True
    inputs = model.inputs(seen[:1], "What is seen?")
    prompt = model.processor.batch_decode(inputs["input_ids"])[0]
    assert "What is seen?" in prompt
    with torch.inference_mode():
        tokens = model.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    text = model.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    assert text.strip() == found[0]
    assert model.takes_videos == (name != "llava")


def test_half_precision_is_what_a_gpu_does(
    folders: Callable[[str], Path], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "device_of", lambda backend: (torch.device("cpu"), torch.bfloat16))
    model = models.load_caption_model(folders("qwen3"), "cpu")
    model.one_by_one = False
    assert all(isinstance(text, str) for text in model.describe(shots(rng, 4, 4, 6), "What?", 4))


def test_folders_that_cannot_be_used(folders: Callable[[str], Path], tmp_path: Path) -> None:
    good = folders("qwen2.5")

    def spec(folder: Path, **options: Any) -> CaptionSpec | None:
        return CaptionSpec.of(CaptionOptions(model=str(folder), **options))

    with pytest.raises(InputError, match="captioning_model: there is no folder"):
        spec(tmp_path / "none")
    with pytest.raises(ParameterError, match="captioning_model must be a local folder"):
        CaptionSpec.of(CaptionOptions(model="s3://bucket/model"))
    pickled = copy_folder(good, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin, which are pickles and can run code"):
        spec(pickled)
    coded = copy_folder(good, tmp_path / "coded")
    settings = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps({**settings, "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(ParameterError, match="code of its own, which is not run for captions"):
        spec(coded)
    odd = copy_folder(good, tmp_path / "odd name")
    with pytest.raises(ParameterError, match="captioning_name"):
        spec(odd)
    assert spec(odd, name="odd") is not None
    untold = copy_folder(good, tmp_path / "untold")
    (untold / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"cannot caption: .*chat_template"):
        loaded(untold)
    (tmp_path / "prompt").write_text(" \n")
    with pytest.raises(InputError, match="holds no text"):
        spec(good, prompt_file=str(tmp_path / "prompt"))
    with pytest.raises(ParameterError, match="both given"):
        CaptionOptions(prompt="a", prompt_file="b")
    (tmp_path / "prompt").write_text("¿Qué?\n", encoding="utf-8-sig")
    found = spec(good, prompt_file=str(tmp_path / "prompt"))
    assert found is not None
    assert found.prompt == "¿Qué?"
    assert found.identity()["prompt"] == "¿Qué?"


def test_a_clip_that_fails_costs_that_clip(
    folders: Callable[[str], Path], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window that is too large for memory, one that the model cannot take, no window at all, no words."""
    step = loaded(folders("qwen2.5"), window_size=8, remainder_threshold=4)
    real = step.loaded.generate

    def generate(seen: Any, *rest: Any) -> list[str]:
        if any(shot.frames.max() == 0 for shot in seen):
            raise torch.OutOfMemoryError("CUDA out of memory")
        said = zip(seen, real(seen, *rest), strict=True)
        return ["" if shot.frames.min() == 255 else text for shot, text in said]

    monkeypatch.setattr(step.loaded, "generate", generate)
    step.loaded.one_by_one = False
    pictures = [rng.integers(1, 255, (4, 40, 40, 3), dtype=np.uint8) for _ in range(5)]
    pictures[1][:2], pictures[3][:] = 0, 255
    chain = StepChain([step])
    batch = [Clip({"n_frames": 16, "duration_s": 2.0}, (frames,)) for frames in pictures]
    batch[2].facts["n_frames"] = 3
    for clip in batch:
        chain.add(clip)
    chain.finish()
    assert [len(clip.facts["windows"]) for clip in batch] == [2, 0, 0, 0, 2]
    faults = [clip.faults for clip in batch]
    assert [[reason for reason, *_ in each] for each in faults] == [
        [],
        ["caption_error"],
        ["no_window"],
        ["caption_error"],
        [],
    ]
    assert "frames 0 to 7: OutOfMemoryError: CUDA out of memory" in faults[1][0][1]
    assert "3 frames, where 4 are needed" in faults[2][0][1]
    assert "gave no text" in faults[3][0][1]


def test_captions_go_into_metas_and_rows_and_are_made_once(
    inside: distributed.Client, clips: Path, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(clips)
    result = captioner(clips, folders("qwen2.5")).run(inside)
    assert (result.captioned, result.windows, result.clean) == (4, 12, True)
    metas = read_metas(clips)
    rows = read_rows(clips, "qwen2.5_caption_parquet")
    spans = {(0, 7), (8, 15), (16, 19)}
    for clip_id, meta in metas.items():
        own = rows[rows["id"] == clip_id]
        told = captions_in(meta)
        assert {tuple(caption.window) for caption in told} == spans
        assert [caption.text for caption in told] == own["caption"].tolist()
        old = json.loads(before[f"metas/v0/{clip_id}.json"])
        assert {**meta, "windows": []} == old
    changed = {name for name, content in contents(clips).items() if before.get(name) != content}
    assert not {name for name in changed if name.startswith(("clips/", "dct3d", "summary", "_videos"))}

    done = contents(clips)
    assert captioner(clips, folders("qwen2.5")).run(NOWHERE).processed == 0
    assert contents(clips) == done
    with pytest.raises(OutputConflictError, match=r"captioning_prompt: (?s:.*)--captioning-name"):
        captioner(clips, folders("qwen2.5"), captioning_prompt="What?").run(NOWHERE)

    # Another model adds its own; a meta that was made anew gets its captions again, and no other is touched.
    assert captioner(clips, folders("smolvlm2")).run(inside).captioned == 4
    first = min(metas)
    assert {c.model for c in captions_in(read_metas(clips)[first])} == {"qwen2.5", "smolvlm2"}
    (clips / f"metas/v0/{first}.json").write_bytes(before[f"metas/v0/{first}.json"])
    assert captioner(clips, folders("qwen2.5")).run(inside).processed == 1
    assert captions_in(read_metas(clips)[first]) == captions_in(metas[first])


def test_a_run_that_a_broken_gpu_ends_goes_on(
    inside: distributed.Client, clips: Path, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is put down to the clips; what was done is not done again, and the result is that of one run."""
    whole = copy_folder(clips, clips.parent / "whole")
    model = folders("qwen2.5")
    captioner(whole, model, captioning_batch_size=1).run(inside)
    calls, real = [], models.CaptionModel.generate

    def generate(self: Any, *given: Any) -> list[str]:
        calls.append(1)
        if len(calls) == 8:
            raise type("AcceleratorError", (RuntimeError,), {})("CUDA error: an illegal memory access")
        return real(self, *given)

    monkeypatch.setattr(models.CaptionModel, "generate", generate)
    with pytest.raises(ClusterError, match="the GPU failed while windows were captioned"):
        captioner(clips, model, captioning_batch_size=1).run(inside)
    assert not (clips / "qwen2.5_caption_parquet").exists()
    before = len(calls)
    assert captioner(clips, model, captioning_batch_size=1).run(inside).captioned == 4
    assert 3 <= len(calls) - before < 12, "clips that were done are not done again"
    assert {**read_metas(clips)} == read_metas(whole)
    assert read_rows(clips, "qwen2.5_caption_parquet").equals(read_rows(whole, "qwen2.5_caption_parquet"))


def test_what_fails_is_in_quarantine_of_this_step_and_in_the_dataset(
    inside: distributed.Client, clips: Path, tmp_path: Path, folders: Callable[[str], Path]
) -> None:
    """A video of three frames; a meta that somebody has broken; then both layouts of shards."""
    make_video(clips / "clips" / "short.mp4", 3)
    broken = min(read_metas(clips))
    (clips / f"metas/v0/{broken}.json").write_text('{"windows": 5}')
    result = captioner(clips, folders("qwen3")).run(inside)
    assert (result.captioned, result.quarantined_clips, result.malformed_metadata) == (4, {"no_window": 1}, 1)
    assert not result.clean
    assert dict(result.rows())["  failed"] == "1"
    held = pq.read_table(clips / "_quarantine/qwen3_caption_parquet_clips.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in held] == [("short", "no_window")]
    assert (clips / f"metas/v0/{broken}.json").read_text() == '{"windows": 5}'
    assert set(read_rows(clips, "qwen3_caption_parquet")["id"]) == {*read_metas_ids(clips)}
    again = captioner(clips, folders("qwen3")).run(NOWHERE)
    assert (again.processed, again.captioned, again.clean) == (0, 4, False), "what the bytes tell is not tried again"
    for layout in ("flat", "cosmos"):
        out = tmp_path / layout
        assert ShardWorkflow(str(clips), str(out), layout=layout, verbose=False).run(inside).kept == 5
        samples = {}
        for path in out.rglob("*.tar"):
            with tarfile.open(path) as tar:
                for member in tar.getmembers():
                    if member.name.endswith(".json"):
                        sample = json.load(tar.extractfile(member))  # type: ignore[arg-type]
                        samples[sample["id"]] = [c.text for c in captions_in(sample)]
        assert {len(told) for key, told in samples.items() if key not in (broken, "short")} == {3}
        assert samples[broken] == samples["short"] == []


def read_metas_ids(clips: Path) -> list[str]:
    return [path.stem for path in (clips / "metas/v0").glob("*.json")]


def test_clips_of_others_and_names_that_repeat(
    inside: distributed.Client, tmp_path: Path, folders: Callable[[str], Path]
) -> None:
    """Metadata are made for the clips right in the folder, by their names, as `shard` reads them."""
    for name in ("a.mp4", "left/b.mp4", "right/b.mp4"):
        make_texture(tmp_path / "mine" / name, len(name), 2)
    result = captioner(tmp_path / "mine", folders("llava")).run(inside)
    assert (result.captioned, result.windows) == (3, 9)
    assert set(read_rows(tmp_path / "mine", "llava_caption_parquet")["id"]) == {"a.mp4", "left/b.mp4", "right/b.mp4"}
    (meta,) = read_metas(tmp_path / "mine").items()
    assert meta[0] == "a"
    assert (meta[1]["num_frames"], len(captions_in(meta[1]))) == (20, 3)
    assert captioner(tmp_path / "mine", folders("llava")).run(NOWHERE).processed == 0


def test_split_decodes_once_for_all_steps_of_a_clip(
    inside: distributed.Client,
    made: Path,
    tmp_path: Path,
    folders: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"captioning_model": str(folders("qwen2.5")), **SHORT}
    workflow = splitter(made.parent / "in", tmp_path / "out", upload_clips=False, **options)
    calls, real = [], Child.call

    def call(self: Child, function: Any, *given: Any) -> Any:
        calls.append(function.__name__)
        return real(self, function, *given)

    monkeypatch.setattr(Child, "call", call)
    result = workflow.run(inside)
    assert calls == ["split_video"] * 2, "the process that decodes was asked once for each video"
    assert [video["n_frames"] for video in result.videos] == [40, 40], "and decoded each frame once"
    assert (result.counts.n_captioned, result.embedded) == (4, 4)
    rows = read_rows(tmp_path / "out", "qwen2.5_caption_parquet")
    assert len(rows) == 12
    for clip_id, meta in read_metas(tmp_path / "out").items():
        assert [c.text for c in captions_in(meta)] == rows[rows["id"] == clip_id]["caption"].tolist()
    assert read_videos(tmp_path / "out")["n_captions"].tolist() == [6, 6]


def test_the_command_line(
    inside: distributed.Client, clips: Path, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    runner, address = CliRunner(), inside.scheduler.address
    command = ["caption", "--input-clip-path", str(clips), "--captioning-model", str(folders("qwen2.5"))]
    command += ["--max-new-tokens", "6", "--prompt", "Look!", "--scheduler", address]
    planned = runner.invoke(cli.main, [*command, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "about 4 windows to caption by qwen2.5, each in at most 6 tokens" in planned.output
    assert not list(clips.glob("*caption*"))
    make_video(clips / "clips" / "short.mp4", 3)
    ran = runner.invoke(cli.main, command)
    assert ran.exit_code == 3, ran.output
    assert "quarantine: clip short of short.mp4: no_window: 3 frames" in ran.output
    assert runner.invoke(cli.main, ["caption", "--input-clip-path", str(clips)]).exit_code == 2
