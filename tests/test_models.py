"""Models of transformers, tiny and of random weights, saved by the test and loaded by the code that loads real ones."""

import json
import os
import shutil
import socket
import tempfile
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Code that models bring is copied there when it is loaded; not into the home of whoever runs the tests.
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="semdedup-test-"))
torch = pytest.importorskip("torch", reason="the extra models is not installed")
transformers = pytest.importorskip("transformers", reason="the extra models is not installed")
pytest.importorskip("safetensors", reason="the extra models is not installed")

from semdedup.errors import ClusterError, InputError, ParameterError  # noqa: E402
from semdedup.video.steps.chain import Clip, StepChain  # noqa: E402
from semdedup.video.steps.embed import hugging_face, network, preprocess  # noqa: E402
from semdedup.video.steps.embed import providers as embedders  # noqa: E402
from semdedup.video.steps.embed import networks as models  # noqa: E402
from semdedup.video.steps.embed.embedder import Embedder  # noqa: E402
from semdedup.video.steps.embed.providers import EmbedderSpec, load_embedder  # noqa: E402

TINY = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TINY, "image_size": 32, "patch_size": 8}
TEXT = {
    **TINY,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

CROPPED = {
    "size": {"shortest_edge": 36},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
SQUARE = {"size": {"height": 32, "width": 32}, "resample": 2, "do_normalize": True, **HALF}


def clip_model() -> Any:
    config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)
    return transformers.CLIPModel(config)


def siglip_model() -> Any:
    return transformers.SiglipModel(transformers.SiglipConfig(vision_config=VISION, text_config=TEXT))


def siglip2_model() -> Any:
    vision = {**TINY, "patch_size": 8, "num_patches": 16}
    return transformers.Siglip2Model(transformers.Siglip2Config(vision_config=vision, text_config=TEXT))


def dinov2_model() -> Any:
    return transformers.Dinov2Model(transformers.Dinov2Config(**VISION))


def dinov3_model() -> Any:
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VISION))


def convnext_model() -> Any:
    return transformers.ConvNextModel(transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]))


def x_clip_model() -> Any:
    if transformers.__version__.startswith(("4.56", "4.57")):
        pytest.skip("get_video_features of X-CLIP is broken in this version of transformers")
    vision = {**VISION, "num_frames": 4, "mit_hidden_size": 32, "mit_intermediate_size": 37}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 4}
    config = transformers.XCLIPConfig(vision_config=vision, text_config=TEXT, projection_dim=32)
    return transformers.XCLIPModel(config)


def videomae_model() -> Any:
    return transformers.VideoMAEModel(transformers.VideoMAEConfig(**VISION, num_frames=6, tubelet_size=2))


def vjepa2_model() -> Any:
    config = transformers.VJEPA2Config(
        crop_size=32, patch_size=8, frames_per_clip=4, hidden_size=48, num_attention_heads=4, num_hidden_layers=2,
        pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1, pred_num_mask_tokens=2, mlp_ratio=2,
    )  # fmt: skip
    return transformers.VJEPA2Model(config)


MODELS: dict[str, tuple[Callable[[], Any], dict, int, int]] = {
    "clip": (clip_model, CROPPED, 8, 24),
    "siglip": (siglip_model, SQUARE, 8, 32),
    "siglip2": (siglip2_model, {**HALF, "resample": 2, "patch_size": 8, "max_num_patches": 16}, 8, 32),
    "dinov2": (dinov2_model, CROPPED, 8, 32),
    "dinov3": (dinov3_model, SQUARE, 8, 32),
    "convnext": (convnext_model, SQUARE, 8, 32),
    "x-clip": (x_clip_model, CROPPED, 4, 32),
    "videomae": (videomae_model, CROPPED, 6, 32),
    "v-jepa2": (vjepa2_model, CROPPED, 4, 48),
}
"""How each is made, its preprocessor settings, the frames that it sees, the length of its vectors."""


def save(name: str, folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    make, preprocessor, _, _ = MODELS[name]
    make().save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture
def device(backend: str) -> str:
    """Every backend that torch has. With SEMDEDUP_REQUIRE_GPU=1 a missing GPU fails instead of skipping."""
    if backend == "gpu" and not torch.cuda.is_available():
        message = "no GPU that torch sees"
        if os.environ.get("SEMDEDUP_REQUIRE_GPU") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return backend


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    embedders._loaded.clear()


def clips(rng: np.random.Generator, n: int = 5, t: int = 8) -> list[np.ndarray]:
    """Clips of blocks of colour, of different sizes."""
    sizes = [(6, 8), (8, 6), (5, 9), (7, 7), (6, 8)]
    return [
        rng.integers(0, 256, (t, *sizes[i % 5], 3), dtype=np.uint8).repeat(9, axis=1).repeat(9, axis=2)
        for i in range(n)
    ]  # fmt: skip


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def loaded(name: str, folder: Path, device: str = "cpu") -> Embedder:
    spec = EmbedderSpec("hf", model_dir=str(folder), backend=device)  # type: ignore[arg-type]
    spec.check()
    return load_embedder(spec)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_embeds(name: str, tmp_path: Path, rng: np.random.Generator, device: str) -> None:
    embedder = loaded(name, save(name, tmp_path), device)
    _, _, n_frames, dim = MODELS[name]
    assert (embedder.name, embedder.n_frames, embedder.batch_size) == ("hf", n_frames, 8)
    batch = clips(rng, t=n_frames)
    vectors = embedder.embed(batch)
    assert vectors.shape == (5, dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.unique(np.round(unit(vectors), 4), axis=0).shape == (5, dim), "vectors must tell clips apart"

    one_by_one = np.concatenate([embedder.embed([frames]) for frames in batch])
    if device == "cpu":
        np.testing.assert_array_equal(one_by_one, vectors)
    else:  # half precision: 8 bits
        assert (unit(one_by_one) * unit(vectors)).sum(axis=1).min() > 0.995
    embedders._loaded.clear()
    again = loaded(name, tmp_path, device).embed(batch)
    np.testing.assert_allclose(again, vectors, atol=0 if device == "cpu" else 0.05)


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_and_whole_batches(
    name: str, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on the CPU."""
    folder = save(name, tmp_path)
    batch = clips(rng, t=MODELS[name][2])
    exact = loaded(name, folder).embed(batch)
    embedders._loaded.clear()
    monkeypatch.setattr(models, "_device", lambda spec: (torch.device("cpu"), torch.bfloat16))
    embedder = loaded(name, folder)
    embedder.embed.one_by_one = False  # type: ignore[attr-defined]
    vectors = embedder.embed(batch)
    assert vectors.dtype == np.float32
    assert (unit(vectors) * unit(exact)).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "x-clip", "videomae", "v-jepa2"])
def test_the_vector_is_the_one_of_the_model(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """What transformers' own classes give for pixels that were prepared by hand."""
    folder = save(name, tmp_path)
    n_frames = MODELS[name][2]
    frames = rng.integers(0, 256, (n_frames, 32, 32, 3), dtype=np.uint8)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    if name != "siglip":
        settings |= {"size": {"shortest_edge": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    vector = loaded(name, folder).embed([frames])[0]

    pixels = (frames / 255 - settings["image_mean"]) / settings["image_std"]
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    model = transformers.AutoModel.from_pretrained(folder).eval().float()
    with torch.inference_mode():
        if name in ("clip", "siglip"):
            out = model.get_image_features(pixel_values=pixels)
            each = getattr(out, "pooler_output", out)
        elif name == "dinov2":
            each = model(pixels).last_hidden_state[:, 0]
        elif name == "x-clip":
            out = model.get_video_features(pixel_values=pixels[None])
            each = getattr(out, "pooler_output", out)
        elif name == "videomae":
            each = model(pixels[None]).last_hidden_state.mean(dim=1)
        else:
            each = model.get_vision_features(pixels[None]).mean(dim=1)
    if len(each) > 1:
        each = (each / each.norm(dim=1, keepdim=True)).mean(dim=0, keepdim=True)
    np.testing.assert_allclose(vector, each[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip", "videomae", "siglip2"])
@pytest.mark.parametrize("shape", [(36, 36), (72, 48), (40, 90), (20, 30)])
def test_frames_are_prepared_as_transformers_does(name: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    """Against its processors that use Pillow: of version 4 the ordinary ones, of 5 those ending in Pil."""
    classes = {"clip": "CLIP", "siglip": "Siglip", "videomae": "VideoMAE", "siglip2": "Siglip2"}
    module = f"transformers.models.{name}.image_processing"
    kind = f"{classes[name]}ImageProcessor"
    try:
        processor_class = getattr(__import__(f"{module}_pil_{name}", fromlist=[kind]), f"{kind}Pil")
    except ModuleNotFoundError:
        processor_class = getattr(transformers, kind)
    settings = MODELS[name][1]
    frames = rng.integers(0, 256, (2, shape[0] // 2, shape[1] // 2, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    expected = processor_class(**settings)(list(frames), return_tensors="pt")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings))
        preparation = preprocess.preparation_of(Path(folder), is_video=False)
    pixels = preparation.apply(frames)
    inputs = hugging_face.patches_of(pixels, *preparation.patches) if preparation.patches else {"pixel_values": pixels}
    a_grey_level = 1 / 255 / 0.26
    for key, value in inputs.items():
        wanted = expected[key].reshape(value.shape).float()
        assert (value - wanted).abs().max() <= 1.5 * a_grey_level
        assert (value - wanted).abs().mean() < 0.25 * a_grey_level


def test_settings_of_processors_that_transformers_saved_are_understood(tmp_path: Path) -> None:
    """Version 5 nests them in processor_config.json; files of 2021 have numbers for sizes."""
    nested = {"processor_class": "CLIPProcessor", "image_processor": CROPPED, "video_processor": SQUARE}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    image, video = (preprocess.preparation_of(tmp_path, is_video=which) for which in (False, True))
    assert (image.size, image.shorter, image.crop, image.resample) == (None, 36, (32, 32), "bicubic")
    assert (video.size, video.shorter, video.crop, video.resample) == ((32, 32), 0, None, "bilinear")
    assert image.mean == tuple(CLIP_MEAN)
    old = {"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3, **HALF}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    assert preprocess.preparation_of(tmp_path, is_video=False) == preprocess.Preparation(
        None, 224, (224, 224), "bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 224, "resample": 2, **HALF}))
    assert preprocess.preparation_of(tmp_path, is_video=False).size == (224, 224)


def test_frames_come_in_the_size_that_the_model_reads(tmp_path: Path) -> None:
    cropped = loaded("clip", save("clip", tmp_path / "clip"))
    assert (cropped.frame_size, cropped.short_side) == (None, 36)
    square = loaded("siglip", save("siglip", tmp_path / "siglip"))
    assert square.frame_size == (32, 32)


def test_a_clip_with_another_number_of_frames(tmp_path: Path, rng: np.random.Generator) -> None:
    embedder = loaded("videomae", save("videomae", tmp_path))
    frames = clips(rng, 1, t=24)[0]
    np.testing.assert_array_equal(embedder.embed([frames]), embedder.embed([frames[2::4]]))
    assert embedder.embed([frames[:1]]).shape == (1, 32)


def test_a_model_that_fails_on_a_clip_of_a_batch_embeds_the_others(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = loaded("clip", save("clip", tmp_path))
    good, bad = clips(rng, 3), np.zeros((8, 0, 9, 3), dtype=np.uint8)
    chain, batch = StepChain([embedder]), []
    for frames in (good[0], bad, *good[1:]):
        batch.append(Clip({}, (frames,)))
        chain.add(batch[-1])
    chain.finish()
    ((reason, detail),) = batch[1].faults
    assert reason == "embed_error"
    assert "the model hf failed on 1 clips, the first with frames of shape (8, 0, 9, 3): " in detail
    found = [clip.vector for clip in batch if clip.vector is not None]
    np.testing.assert_allclose(found, unit(embedder.embed(good)), atol=1e-6)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(embedder.embed), "vectors", full)
    with pytest.raises(ClusterError, match=r"OutOfMemoryError.* has to do with the machine"):
        embedder.embed(good[:1])


def test_a_model_is_loaded_once_for_all_threads(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = EmbedderSpec("hf", model_dir=str(save("clip", tmp_path / "a")))
    batch = clips(rng, 2)
    results: list[tuple[Embedder, np.ndarray]] = []

    def work() -> None:
        embedder = load_embedder(spec)
        results.append((embedder, embedder.embed(batch)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(embedder) for embedder, _ in results}) == 1
    for _, vectors in results:
        np.testing.assert_array_equal(vectors, results[0][1])

    save("clip", tmp_path / "a", seed=1)
    assert load_embedder(spec) is not results[0][0], "other weights in the folder"
    for name in ("siglip", "dinov2"):
        load_embedder(EmbedderSpec("hf", model_dir=str(save(name, tmp_path / name))))
    assert len(embedders._loaded) == embedders.HELD


def test_identity_goes_with_what_decides_about_the_vectors(tmp_path: Path) -> None:
    folder = save("clip", tmp_path / "a")
    spec = EmbedderSpec("hf", model_dir=str(folder))
    identity = spec.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert str(tmp_path) not in json.dumps(identity)
    shutil.copytree(folder, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "README.md").write_text("moved")
    assert EmbedderSpec("hf", model_dir=str(tmp_path / "elsewhere"), batch_size=3).identity() == identity
    seen = [identity]
    save("clip", folder, seed=1)  # the same sizes
    seen.append(spec.identity())
    (folder / "preprocessor_config.json").write_text(json.dumps({**CROPPED, "resample": 2}))
    seen.append(spec.identity())
    (folder / "modeling_x.py").write_text("pass")
    seen.append(spec.identity())
    assert len({json.dumps(i) for i in seen}) == 4


def test_folders_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    def check(folder: Path | str | None, algorithm: str = "hf") -> None:
        EmbedderSpec(algorithm, model_dir=None if folder is None else str(folder)).check()

    with pytest.raises(ParameterError, match="hf needs the folder of the model: --model-dir"):
        check(None)
    with pytest.raises(ParameterError, match=r"local folder that every worker sees; got s3://b/m"):
        check("s3://b/m")
    with pytest.raises(InputError, match=f"no folder .*absent on {socket.gethostname()}"):
        check(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no config\.json in .*; found nothing"):
        check(tmp_path)
    with pytest.raises(InputError, match="nor below it as nvidia/Cosmos-Embed1-224p"):
        check(tmp_path, "cosmos-embed1-224p")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"must be \*\.safetensors; .* holds config\.json\."):
        check(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds pytorch_model\.bin, which are pickles and can run code"):
        check(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    check(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        check(tmp_path)


def test_models_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = save("clip", tmp_path / "unprepared")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"unprepared cannot be used as hf: no preprocessor_config\.json"):
        loaded("clip", folder)

    folder = save("clip", tmp_path / "odd")
    (folder / "preprocessor_config.json").write_text(json.dumps({**CROPPED, "size": {"longest_edge": 5}}))
    with pytest.raises(InputError, match="size must be height and width, or shortest_edge"):
        loaded("clip", folder)

    folder = save("clip", tmp_path / "corrupt")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="corrupt cannot be used as hf"):
        loaded("clip", folder)

    folder = tmp_path / "text"
    transformers.BertModel(transformers.BertConfig(**TINY, vocab_size=99)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SQUARE))
    with pytest.raises(InputError, match="text cannot be used as hf"):
        loaded("bert", folder)


def test_weights_that_are_missing_are_not_invented(tmp_path: Path, rng: np.random.Generator) -> None:
    from safetensors.torch import load_file, save_file

    folder = save("clip", tmp_path / "incomplete")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if name != "visual_projection.weight"},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(InputError, match=r"1 weights are not in the files: visual_projection\.weight"):
        loaded("clip", folder)

    # A classifier that was trained without a pooler: two loads give the same vectors all the same.
    folder = tmp_path / "no pooler"
    torch.manual_seed(0)
    transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SQUARE))
    batch = clips(rng, 2)
    first = loaded("vit", folder).embed(batch)
    embedders._loaded.clear()
    np.testing.assert_array_equal(loaded("vit", folder).embed(batch), first)


def test_a_gpu_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = EmbedderSpec("hf", model_dir=str(save("clip", tmp_path)), backend="gpu")
    with pytest.raises(ClusterError, match="torch sees no GPU"):
        load_embedder(spec)


CONFIGURATION = """
from transformers import PretrainedConfig

class OwnConfig(PretrainedConfig):
    model_type = "semdedup-test-own"

    def __init__(self, dim=12, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
"""

COSMOS = """
from dataclasses import dataclass
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput
from .configuration_own import OwnConfig

open(r"{trace}", "a").write("run")

@dataclass
class Output(ModelOutput):
    visual_proj: torch.Tensor = None

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.projection = torch.nn.Linear(3, config.dim)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_video_embeddings(self, videos):
        assert videos.shape[1:3] == (8, 3) and videos.shape[3:] == (224, 224), videos.shape
        assert videos.dtype == self.projection.weight.dtype
        return Output(visual_proj=self.projection(videos.mean(dim=(1, 3, 4))))
"""

COSMOS_PROCESSOR = """
import torch
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

class OwnProcessor(ProcessorMixin):
    attributes = []

    def __init__(self, resolution=224, num_video_frames=8, **kwargs):
        super().__init__(**kwargs)
        self.resolution, self.num_video_frames = resolution, num_video_frames

    def __call__(self, videos):
        assert videos.dtype.name == "uint8"
        return BatchFeature({"videos": torch.tensor(videos) / 255})
"""

INTERNVIDEO2 = """
import torch
from transformers import PreTrainedModel
from .configuration_own import OwnConfig

open(r"{trace}", "a").write("run")

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.vision_proj = torch.nn.Linear(3, config.dim)
        self.post_init()

    def _init_weights(self, module):
        pass

    def encode_vision(self, frames, test=False):
        assert test and frames.shape[1:] == (4, 3, 224, 224), frames.shape
        return frames.flatten(3), frames.mean(dim=(1, 3, 4))
"""

GET_VID_FEAT = """
    def get_vid_feat(self, frames):
        return torch.nn.functional.normalize(self.vision_proj(self.encode_vision(frames, test=True)[1]), dim=-1)
"""


def save_own(folder: Path, code: str, trace: Path) -> np.ndarray:
    """A model with code of its own; returns the weight of its one layer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(code.replace("{trace}", str(trace)))
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    config = {"model_type": "semdedup-test-own", "architectures": ["OwnModel"], "auto_map": auto_map, "dim": 12}
    (folder / "config.json").write_text(json.dumps(config))
    weight = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    layer = "projection" if "projection" in code else "vision_proj"
    weights = {f"{layer}.weight": weight, f"{layer}.bias": torch.zeros(12)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if code == COSMOS:
        (folder / "preprocessing_own.py").write_text(COSMOS_PROCESSOR)
        processor = {
            "processor_class": "OwnProcessor",
            "auto_map": {"AutoProcessor": "preprocessing_own.OwnProcessor"},
            "resolution": 224,
            "num_video_frames": 8,
        }
        (folder / "processor_config.json").write_text(json.dumps(processor))
    return weight.numpy()


@pytest.mark.parametrize("below", ["", "nvidia/Cosmos-Embed1-224p", "Cosmos-Embed1-224p"])
def test_cosmos_embed1(below: str, tmp_path: Path, rng: np.random.Generator, device: str) -> None:
    weight = save_own(tmp_path / "models" / below, COSMOS, tmp_path / "trace")
    spec = EmbedderSpec("cosmos-embed1-224p", str(tmp_path / "models"), trust_remote_code=True, backend=device)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="Python code from .* runs here and on every worker"):
        spec.check()
    with pytest.warns(UserWarning, match="trust_remote_code"):
        embedder = load_embedder(spec)
    assert (embedder.name, spec.folder) == ("ce1_224p", "ce1_embd_224p_parquet")
    assert (embedder.n_frames, embedder.frame_size) == (8, (224, 224))
    batch = [rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8) for _ in range(3)]
    batch.append(clips(rng, 1)[0])
    vectors = embedder.embed(batch)
    expected = np.stack([frames.mean(axis=(0, 1, 2)) / 255 for frames in batch]) @ weight.T
    np.testing.assert_allclose(vectors, expected, atol=0.01 if device == "cpu" else 0.1)
    with pytest.raises(InputError, match="is a Cosmos-Embed1 of 224p, but cosmos-embed1-336p is wanted"):
        EmbedderSpec("cosmos-embed1-336p", str(tmp_path / "models" / below), trust_remote_code=True).check()


@pytest.mark.parametrize("code", [INTERNVIDEO2, INTERNVIDEO2 + GET_VID_FEAT], ids=["encode_vision", "get_vid_feat"])
def test_internvideo2(code: str, tmp_path: Path, rng: np.random.Generator, device: str) -> None:
    weight = save_own(tmp_path / f"iv2_{len(code)}", code, tmp_path / "trace")
    spec = EmbedderSpec("internvideo2", str(tmp_path / f"iv2_{len(code)}"), trust_remote_code=True, backend=device)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="trust_remote_code"):
        embedder = load_embedder(spec)
    assert (embedder.name, embedder.n_frames, embedder.frame_size) == ("iv2", 4, (224, 224))
    batch = [rng.integers(0, 256, (4, 224, 224, 3), dtype=np.uint8) // (i + 1) for i in range(3)]
    means = np.stack([frames.mean(axis=(0, 1, 2)) / 255 for frames in batch])
    expected = (means - network.IMAGENET_MEAN) / network.IMAGENET_STD @ weight.T
    cosines = (unit(embedder.embed(batch)) * unit(expected)).sum(axis=1)
    assert cosines.min() > (0.9999 if device == "cpu" else 0.99)


@pytest.mark.parametrize("algorithm", ["hf", "cosmos-embed1-224p", "internvideo2"])
def test_code_of_a_model_does_not_run_unasked(algorithm: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    save_own(tmp_path / "model", COSMOS, trace)
    spec = EmbedderSpec(algorithm, str(tmp_path / "model"))
    for act in (spec.check, lambda: load_embedder(spec), lambda: models.load_model(spec.model)):
        with pytest.raises((ParameterError, InputError), match=r"trust[-_]remote[-_]code"):
            act()
    assert not trace.exists()


def test_packages_that_the_code_of_a_model_needs_are_named(tmp_path: Path) -> None:
    code = textwrap.dedent("import a_package_that_is_not_there\n") + INTERNVIDEO2
    save_own(tmp_path / "needy", code, tmp_path / "trace")
    spec = EmbedderSpec("internvideo2", str(tmp_path / "needy"), trust_remote_code=True)
    with (
        pytest.warns(UserWarning, match="trust_remote_code"),
        pytest.raises(InputError, match=r"needy cannot be used as internvideo2: .*a_package_that_is_not_there"),
    ):
        load_embedder(spec)
