"""Models of the real classes, tiny and with random weights, loaded by the code that loads real ones."""

import json
import os
import shutil
import socket
import tempfile
import textwrap
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Code that models bring is copied there when it is loaded; not into the home of whoever runs the tests.
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="semdedup-test-"))
torch = pytest.importorskip("torch", reason="the extra models is not installed")
transformers = pytest.importorskip("transformers", reason="the extra models is not installed")
pytest.importorskip("safetensors", reason="the extra models is not installed")

from benchmarks.tiny_models import (  # noqa: E402
    CLIP_MEAN,
    CROPPED,
    HALF,
    MODELS,
    SQUARE,
    TINY,
    VISION,
    Descriptor,
    missing,
    qwen3_vl_processor,
    save,
    save_descriptor,
)
from semdedup.errors import ClusterError, InputError, ParameterError  # noqa: E402
from semdedup.video.steps.chain import Clip, StepChain  # noqa: E402
from semdedup.video.steps.embed import hugging_face, network, preprocess  # noqa: E402
from semdedup.video.steps.embed import networks as models  # noqa: E402
from semdedup.video.steps.embed import providers as embedders  # noqa: E402
from semdedup.video.steps.embed.embedder import Embedder  # noqa: E402
from semdedup.video.steps.embed.providers import EmbedderSpec, load_embedder  # noqa: E402
from semdedup.video.steps.protocol import ClipInput  # noqa: E402


@pytest.fixture
def device(backend: str) -> str:
    """Every backend that torch has. With SEMDEDUP_REQUIRE_GPU=1 a missing GPU fails instead of skipping."""
    if backend == "gpu" and not torch.cuda.is_available():
        message = "no GPU that torch sees"
        if os.environ.get("SEMDEDUP_REQUIRE_GPU") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return backend


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model by its name, made once."""
    made: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if lacks := missing(name):
            pytest.skip(lacks)
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp("models") / name)
        return made[name]

    return folder_of


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    embedders._loaded.clear()
    torch.set_num_threads(1)  # a second one only waits: the models are tiny


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
def test_a_model_embeds(name: str, saved: Callable[[str], Path], rng: np.random.Generator, device: str) -> None:
    embedder = loaded(name, saved(name), device)
    _, _, n_frames, dim = MODELS[name]
    assert (embedder.name, embedder.n_frames, embedder.batch_size) == ("hf", n_frames, 8)
    batch = clips(rng, t=n_frames)
    vectors = embedder.embed(batch)
    assert vectors.shape == (5, dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.unique(np.round(unit(vectors), 4), axis=0).shape == (5, dim), "vectors must tell clips apart"
    results = embedder([ClipInput({}, frames) for frames in batch])
    np.testing.assert_allclose([np.linalg.norm(result.vector) for result in results], 1, atol=1e-6)

    backwards = embedder.embed(batch[::-1])[::-1]
    one_by_one = np.concatenate([embedder.embed([frames]) for frames in batch])
    if device == "cpu":
        np.testing.assert_array_equal(one_by_one, vectors)
        np.testing.assert_array_equal(backwards, vectors)
    else:  # half precision: 8 bits
        assert (unit(one_by_one) * unit(vectors)).sum(axis=1).min() > 0.995
    embedders._loaded.clear()
    again = loaded(name, saved(name), device).embed(batch)
    np.testing.assert_allclose(again, vectors, atol=0 if device == "cpu" else 0.05)


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_and_whole_batches(
    name: str, saved: Callable[[str], Path], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on the CPU."""
    batch = clips(rng, t=MODELS[name][2])
    exact = loaded(name, saved(name)).embed(batch)
    # Convolutions in float16 take minutes on a CPU.
    for dtype in (torch.bfloat16, torch.float16) if name in ("clip", "videomae") else (torch.bfloat16,):
        embedders._loaded.clear()
        monkeypatch.setattr(models, "device_of", lambda spec, dtype=dtype: (torch.device("cpu"), dtype))
        embedder = loaded(name, saved(name))
        embedder.embed.one_by_one = False  # type: ignore[attr-defined]
        vectors = embedder.embed(batch)
        assert vectors.dtype == np.float32
        assert (unit(vectors) * unit(exact)).sum(axis=1).min() > 0.99, dtype


CLASS_S_OWN: dict[str, Callable[[Any, Any], Any]] = {
    "clip": lambda model, pixels: model.get_image_features(pixel_values=pixels),
    "siglip": lambda model, pixels: model.get_image_features(pixel_values=pixels),
    "siglip2": lambda model, pixels: model.get_image_features(
        pixel_values=pixels.reshape(-1, 3, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 192),
        pixel_attention_mask=torch.ones(len(pixels), 16, dtype=torch.int32),
        spatial_shapes=torch.tensor([[4, 4]] * len(pixels)),
    ),
    "dinov2": lambda model, pixels: model(pixels).last_hidden_state[:, 0],
    "dinov3": lambda model, pixels: model(pixels).last_hidden_state[:, 0],
    "x-clip": lambda model, pixels: model.get_video_features(pixel_values=pixels[None]),
    "videomae": lambda model, pixels: model(pixels[None]).last_hidden_state.mean(dim=1),
    "v-jepa2": lambda model, pixels: model.get_vision_features(pixels[None]).mean(dim=1),
    "videoprism": lambda model, pixels: model(pixels[None]).last_hidden_state.mean(dim=1),
    "videoprism-lvt": lambda model, pixels: model.video_model(pixels[None]).pooler_output[0],
    "pe-av": lambda model, pixels: model.video_model.video_head(
        model.video_model.video_encoder(pixels[None]).pooler_output
    ),
}
"""What each gives for pixels (t, 3, 32, 32), as its documentation says that it is used."""


@pytest.mark.parametrize("name", CLASS_S_OWN)
def test_the_vector_is_the_one_of_the_model(
    name: str, saved: Callable[[str], Path], tmp_path: Path, rng: np.random.Generator
) -> None:
    """What transformers' own classes give for pixels that were prepared by hand."""
    folder = tmp_path / "model"
    shutil.copytree(saved(name), folder)
    frames = rng.integers(0, 256, (MODELS[name][2], 32, 32, 3), dtype=np.uint8)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    if settings == CROPPED:
        settings |= {"size": {"shortest_edge": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    vector = loaded(name, folder).embed([frames])[0]

    pixels = (frames / 255 - settings.get("image_mean", 0)) / settings.get("image_std", 1)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    model = transformers.AutoModel.from_pretrained(folder).eval().float()
    with torch.inference_mode():
        each = CLASS_S_OWN[name](model, pixels)
    each = getattr(each, "pooler_output", each)
    if len(each) > 1:
        each = (each / each.norm(dim=1, keepdim=True)).mean(dim=0, keepdim=True)
    np.testing.assert_allclose(vector, each[0].numpy(), atol=1e-5)
    if name == "pe-av":  # the tower for videos, saved by itself
        model.video_model.save_pretrained(tmp_path / "tower")
        shutil.copy(folder / "preprocessor_config.json", tmp_path / "tower")
        np.testing.assert_allclose(loaded(name, tmp_path / "tower").embed([frames])[0], vector, atol=1e-6)


ASKED = "<|im_start|>{}<|vision_start|><|video_pad|><|vision_end|><|im_end|>{}"
INSTRUCTION = "system Represent the user's input.<|im_end|><|im_start|>user "


def last_hidden_state(folder: Path, frames: np.ndarray, text: str) -> np.ndarray:
    """What Qwen3-VL gives for the last token of a message that is written out, of frames a second apart."""
    times = {"fps": 1.0, "total_num_frames": len(frames), "frames_indices": list(range(len(frames)))}
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=[text], videos=[frames], video_metadata=[times], do_sample_frames=False, return_tensors="pt"
    )
    model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(folder).eval().float()
    with torch.inference_mode():
        return model.model(**inputs).last_hidden_state[0, -1].numpy()


def test_qwen3_vl_embeds_the_last_token(saved: Callable[[str], Path], rng: np.random.Generator) -> None:
    folder = saved("qwen3-vl")
    frames = rng.integers(0, 256, (16, 32, 48, 3), dtype=np.uint8)
    expected = last_hidden_state(folder, frames, ASKED.format(INSTRUCTION, "<|im_start|>assistant"))
    np.testing.assert_allclose(loaded("qwen3-vl", folder).embed([frames])[0], expected, atol=1e-5)


@pytest.fixture(scope="module")
def sentence_models(saved: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of sentence-transformers, as it saves them: of videos, of pictures, of texts."""
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    root = tmp_path_factory.mktemp("sentence")
    shutil.copytree(saved("dinov2"), root / "pictures")
    transformers.BitImageProcessor(**CROPPED).save_pretrained(root / "pictures")
    transformers.BertModel(transformers.BertConfig(**TINY, vocab_size=99)).save_pretrained(root / "texts")
    qwen3_vl_processor().tokenizer.save_pretrained(root / "texts")
    qwen, made = saved("qwen3-vl"), {}
    for kind, folder, pooling in (
        ("video", qwen, "lasttoken"),
        ("image", root / "pictures", "cls"),
        ("text", root / "texts", "mean"),
    ):
        modules = [Transformer(str(folder)), Pooling(32, pooling), Normalize()]
        made[kind] = root / kind
        library.SentenceTransformer(modules=modules, device="cpu").save(str(made[kind]))
    return made


def test_sentence_transformers(
    sentence_models: dict[str, Path], saved: Callable[[str], Path], rng: np.random.Generator
) -> None:
    def embedder_of(kind: str) -> Embedder:
        spec = EmbedderSpec("sentence-transformers", str(sentence_models[kind]))
        spec.check()
        return load_embedder(spec)

    batch = [rng.integers(0, 256, (16, 32, 48, 3), dtype=np.uint8) for _ in range(2)]
    videos = embedder_of("video")
    assert (videos.name, videos.n_frames, videos.frame_size) == ("sentence-transformers", 16, None)
    expected = last_hidden_state(saved("qwen3-vl"), batch[0], ASKED.format("user ", ""))
    found = videos.embed(batch)
    np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_array_equal(videos.embed(batch[::-1])[::-1], found)

    pictures = embedder_of("image")
    assert pictures.n_frames == 8
    same = loaded("dinov2", saved("dinov2")).embed(batch)
    np.testing.assert_allclose(pictures.embed(batch), same, atol=1e-2)  # scaled by another library
    assert (unit(pictures.embed(batch)) * unit(same)).sum(axis=1).min() > 0.9999
    with pytest.raises(InputError, match="it embeds text; needed is a model that embeds videos or pictures"):
        embedder_of("text")


def test_folders_of_sentence_transformers_that_are_refused(sentence_models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def refused(change: Callable[[Path], Any], message: str, error: type[Exception] = InputError) -> None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(sentence_models["image"], folder)
        change(folder)
        with pytest.raises(error, match=message):
            load_embedder(EmbedderSpec("sentence-transformers", str(folder)))

    def modules(**entry: str) -> Callable[[Path], Any]:
        def change(folder: Path) -> None:
            listed = json.loads((folder / "modules.json").read_text())
            (folder / "modules.json").write_text(json.dumps([*listed, {"path": "", "type": "", **entry}]))

        return change

    def forget_a_weight(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["embeddings.cls_token"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    refused(lambda f: (f / "modules.json").unlink(), "no modules.json in .*hf takes models of transformers; found")
    refused(lambda f: (f / "modules.json").write_text("[1]"), "must list modules, each with its path and type")
    refused(lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "are pickles and can run code")
    refused(lambda f: (f / "1_Pooling" / "pytorch_model.bin").touch(), "1_Pooling holds pytorch_model.bin, .* pickles")
    refused(modules(path="../elsewhere"), "names a folder outside")
    refused(modules(type="own.Module"), "brings Python code of its own", ParameterError)
    refused(forget_a_weight, "1 weights are not in the files: embeddings.cls_token")


def test_copy_descriptors_of_a_file_of_torchscript(tmp_path: Path, rng: np.random.Generator, device: str) -> None:
    path = save_descriptor(tmp_path / "sscd" / "sscd_tiny.torchscript.pt")
    for given in (path, path.parent):
        spec = EmbedderSpec("sscd", str(given), backend=device)  # type: ignore[arg-type]
        with pytest.raises(ParameterError, match=r"is TorchScript, which is a program .*--trust-remote-code"):
            load_embedder(spec)
    spec = EmbedderSpec("sscd", str(path.parent), trust_remote_code=True, backend=device)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="the program in .* runs on every worker with your rights"):
        embedder = load_embedder(spec)
    assert (embedder.name, embedder.n_frames, embedder.frame_size) == ("sscd", 8, (320, 320))
    frames = rng.integers(0, 256, (8, 320, 320, 3), dtype=np.uint8)
    torch.manual_seed(0)
    pixels = (frames / 255 - network.IMAGENET_MEAN) / network.IMAGENET_STD
    with torch.inference_mode():
        expected = Descriptor()(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)).mean(dim=0)
    np.testing.assert_allclose(embedder.embed([frames])[0], expected.numpy(), atol=1e-5 if device == "cpu" else 1e-3)

    moved = shutil.copy(path, tmp_path / "moved.pt")
    assert EmbedderSpec("sscd", str(moved)).identity() == spec.identity()
    save_descriptor(path.parent / "another.pt")
    with pytest.raises(InputError, match=r"needed is one file of TorchScript .* holds another\.pt, sscd_tiny"):
        spec.check()
    (tmp_path / "moved.pt").write_bytes(b"not a program")
    with pytest.warns(UserWarning, match="trust"), pytest.raises(InputError, match=r"moved\.pt cannot be used as sscd"):
        load_embedder(EmbedderSpec("sscd", str(moved), trust_remote_code=True))


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
    ((reason, detail, _),) = batch[1].faults
    assert reason == "embed_error"
    assert "the model hf failed on 1 clips, the first with frames of shape (8, 0, 9, 3): " in detail
    found = [clip.vectors["hf"] for clip in batch if clip.vectors]
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


@pytest.mark.parametrize("algorithm", ["cosmos-embed1-224p", "internvideo2"])
def test_code_of_another_transformers_is_refused_before_work_starts(algorithm: str, tmp_path: Path) -> None:
    """As Cosmos-Embed1's and InternVideo2's code, which imports what transformers 5 has no more."""
    code = COSMOS if algorithm.startswith("cosmos") else INTERNVIDEO2
    folder = tmp_path / algorithm.replace("-", "_")
    save_own(folder, code, tmp_path / "trace")
    (folder / "modeling_own.py").write_text("from .own_layers import *\n" + (folder / "modeling_own.py").read_text())
    gone = "from transformers.pytorch_utils import Conv1D, find_pruneable_heads_and_indices\n"
    (folder / "own_layers.py").write_text(gone)
    (folder / "never_imported.py").write_text("from transformers.pytorch_utils import nothing_of_this_name\n")
    spec = EmbedderSpec(algorithm, str(folder), trust_remote_code=True)
    if version("transformers").startswith("4."):
        with pytest.warns(UserWarning, match="trust_remote_code"):
            assert load_embedder(spec).n_frames in (4, 8)
        return
    found = version("transformers")
    with pytest.raises(
        ParameterError,
        match=rf"own_layers\.py\) imports find_pruneable_heads_and_indices of transformers\.pytorch_utils, which "
        rf"transformers {found}.* does not have.*install 'transformers<5'",
    ):
        spec.check()
    assert not (tmp_path / "trace").exists()
    tolerant = f"try:\n    {gone}except ImportError:\n    pass\n"
    (folder / "own_layers.py").write_text(tolerant)
    with pytest.warns(UserWarning, match="trust_remote_code"):
        assert load_embedder(spec).n_frames in (4, 8)


def test_models_that_transformers_does_not_know_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of_next_year"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"has no models of the type of_next_year: pip install --upgrade transformers"):
        load_embedder(EmbedderSpec("hf", str(tmp_path)))


def test_packages_that_a_type_of_model_needs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pe_audio_video"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    find = "semdedup.video.steps.embed.model_folder.find_spec"
    monkeypatch.setattr(find, lambda name: None if name in ("timm", "torchvision") else name)
    with pytest.raises(ParameterError, match="hf needs timm, torchvision: pip install timm torchvision"):
        EmbedderSpec("hf", str(tmp_path)).check()
