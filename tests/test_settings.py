"""Every setting that is declared, against wrong values, in Python, in YAML and as flags: the same sentence at each."""

import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import semdedup
from semdedup import (
    CrossStage,
    IdentifyDuplicatesStage,
    KMeansStage,
    Limits,
    PairsStage,
    PairwiseStage,
    ParameterError,
    RankingStrategy,
    SemanticDeduplicationWorkflow,
    SemdedupError,
    ShardWorkflow,
    VideoCaptionWorkflow,
    VideoDeduplicationWorkflow,
    VideoEmbedWorkflow,
    VideoSplitWorkflow,
    cli,
)
from semdedup.cli.flags import SettingFlag
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.options import (
    CompareOptions,
    FieldOptions,
    InputOptions,
    IOOptions,
    KMeansOptions,
    PairsOptions,
    ThresholdOptions,
    UpdateOptions,
)
from semdedup.dedup.threshold.rule import EPS, exact_eps, least_score
from semdedup.run_options import RunOptions
from semdedup.settings import Options, Setting, settings_of
from semdedup.shards.options import DropOptions, ShardIOOptions, ShardOptions
from semdedup.video.options import (
    CaptionOptions,
    ClipOptions,
    DecodeOptions,
    EmbedOptions,
    PlanOptions,
    StepOptions,
    VideoIOOptions,
)
from semdedup.workflow import names_of

Group = type[Options]
DEDUP: tuple[Group, ...] = (
    IOOptions,
    InputOptions,
    KMeansOptions,
    CompareOptions,
    ThresholdOptions,
    UpdateOptions,
)
LIMITS = [one.name for one in settings_of(Limits)]
SPLIT: tuple[Group, ...] = (
    *(VideoIOOptions, PlanOptions, DecodeOptions, ClipOptions, StepOptions, EmbedOptions, CaptionOptions),
)

DOORS: Mapping[Any, tuple[Group, ...]] = {
    SemanticDeduplicationWorkflow: DEDUP,
    KMeansStage: (IOOptions, InputOptions, KMeansOptions, UpdateOptions),
    PairwiseStage: (IOOptions, FieldOptions, CompareOptions, ThresholdOptions, UpdateOptions),
    IdentifyDuplicatesStage: (IOOptions, ThresholdOptions),
    CrossStage: (IOOptions, FieldOptions),
    PairsStage: (IOOptions, FieldOptions, PairsOptions),
    VideoSplitWorkflow: SPLIT,
    VideoEmbedWorkflow: (VideoIOOptions, DecodeOptions, StepOptions, EmbedOptions),
    VideoCaptionWorkflow: (VideoIOOptions, DecodeOptions, CaptionOptions),
    ShardWorkflow: (ShardIOOptions, DropOptions, ShardOptions),
    VideoDeduplicationWorkflow: (RunOptions,),
    ClusterOptions: (ClusterOptions,),
}
"""What is made of settings, and of which."""

REQUIRED = {
    SemanticDeduplicationWorkflow: {"input_path": "in", "output_path": "out"},
    VideoSplitWorkflow: {"input_path": "in", "output_path": "out"},
    VideoEmbedWorkflow: {"input_path": "in", "output_path": "out"},
    VideoCaptionWorkflow: {"input_path": "in", "captioning_model": "in"},
    ShardWorkflow: {"input_clip_path": "in", "output_dataset_path": "out"},
    VideoDeduplicationWorkflow: {"input_path": "in", "output_path": "out"},
}

COMMANDS: Mapping[str, tuple[Any, list[str]]] = {
    "dedup": (SemanticDeduplicationWorkflow, ["--input-embeddings-path", "in", "--output-path", "out"]),
    "split": (VideoSplitWorkflow, ["--video-dir", "in", "--output-path", "out"]),
    "embed": (VideoEmbedWorkflow, ["--input-clip-path", "in", "--output-path", "out"]),
    "caption": (VideoCaptionWorkflow, ["--input-clip-path", "in", "--captioning-model", "in"]),
    "shard": (ShardWorkflow, ["--input-clip-path", "in", "--output-dataset-path", "out"]),
    "run": (VideoDeduplicationWorkflow, ["--video-dir", "in", "--output-path", "out"]),
}

WRONG: tuple[Any, ...] = (
    None, "many", "no", "", [], ["x", 3], {"nosuch": 1}, math.nan, math.inf, -math.inf, -1, True, 1.5, 10**400,
    np.int64(-1), np.float32("nan"), np.float64(-2.5), np.bool_(True), np.ones(3), b"x", object,
)  # fmt: skip


def is_wrong(declared: Setting, value: Any) -> bool:
    """Whether the declaration refuses a value: what the doors are compared with. That it should is tested by hand."""
    try:
        declared.check(value)
    except ParameterError:
        return True
    return False


def sentence_of(declared: Setting, value: Any) -> str:
    with pytest.raises(ParameterError) as caught:
        declared.check(value)
    return str(caught.value)


def cases() -> Iterator[Any]:
    for door, groups in DOORS.items():
        for declared in settings_of(*groups):
            keywords = inspect.signature(door).parameters
            for name in (declared.name, *declared.aliases):
                if name in keywords:
                    yield pytest.param(door, declared, name, id=f"{door.__name__}-{name}")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert [path.name for path in tmp_path.iterdir() if path.name != "run.yaml"] == [], "nothing is written"


@pytest.mark.parametrize(("door", "declared", "name"), list(cases()))
def test_wrong_values_are_refused_in_python_by_one_sentence(door: Any, declared: Setting, name: str) -> None:
    values = [value for value in WRONG if is_wrong(declared, value)]
    assert len(values) >= 5, "a setting that refuses nothing is not checked"
    for value in values:
        expected = sentence_of(declared, value)
        given = {key: kept for key, kept in REQUIRED.get(door, {}).items() if key not in (declared.name, name)}
        with pytest.raises(ParameterError) as caught:
            door(**given, **{name: value})
        assert isinstance(caught.value, SemdedupError)
        assert isinstance(caught.value, ValueError)
        if declared.kind.group is None or not isinstance(value, Mapping):
            assert str(caught.value) == expected
            shape = r"(\w+) must .+; got .+|\w+ has no parameter .+ here; it has .+"
            assert re.fullmatch(shape, expected, re.DOTALL), expected


def defaults_that_differ() -> Mapping[tuple[Any, str], Any]:
    return {(IdentifyDuplicatesStage, "eps"): 0.1}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_keywords_are_those_that_are_declared_with_their_defaults_and_help(door: Any) -> None:
    declared = {name: one for one in settings_of(*DOORS[door]) for name in (one.name, *one.aliases)}
    parts = {
        "split",
        "overlaps",
        "dedup",
        "shard",
        "layout",
        "folder",
        "summaries",
        "kept",
        "against",
        "clusters_path",
        "input_filetype",
    }
    for name, parameter in inspect.signature(door).parameters.items():
        if name not in declared:
            assert name in parts, name
            continue
        expected = declared[name].default if name == declared[name].name else None
        expected = defaults_that_differ().get((door, name), expected)
        assert parameter.default in (expected, inspect.Parameter.empty), name
        assert type(parameter.default) is type(expected) or parameter.default is inspect.Parameter.empty
    alone = {SemanticDeduplicationWorkflow, VideoSplitWorkflow, VideoEmbedWorkflow, ShardWorkflow}
    if door in alone:  # the stages take their share
        assert {one.name for one in settings_of(*DOORS[door])} <= inspect.signature(door).parameters.keys()
        assert all(f"{one.name}: {one.help}" in door.__doc__ for one in settings_of(*DOORS[door]))


def test_every_setting_has_a_sentence_of_help_and_groups_are_small() -> None:
    for group in {group for groups in DOORS.values() for group in groups}:
        assert len(settings_of(group)) <= 10
        assert group.__dataclass_params__.frozen  # type: ignore[attr-defined]
        for declared in settings_of(group):
            assert declared.help.endswith((".", "…"))
            assert declared.default is None or is_wrong(declared, declared.default) is False


# The command line


def flags_of(command: str) -> list[SettingFlag]:
    made = cli.main.commands[command]
    return [flag for flag in made.params if isinstance(flag, SettingFlag) and flag.declared.kind.metavar]


def texts(declared: Setting) -> list[str]:
    """Texts of a flag that mean nothing that the setting can be."""
    found = [text for text in ("many", "nan", "inf", "-1", "1.5", "../x", "1e400") if text]
    parsed = {text: declared.kind.parse(text) for text in found}
    return [text for text in found if is_wrong(declared, [parsed[text]] if declared.kind.many else parsed[text])]


def flag_cases() -> Iterator[Any]:
    for command in COMMANDS:
        for flag in flags_of(command):
            for text in texts(flag.declared)[:3]:
                for spelling in flag.opts:
                    yield pytest.param(command, flag.declared, spelling, text, id=f"{command}{spelling}={text}")


@pytest.mark.parametrize(("command", "declared", "spelling", "text"), list(flag_cases()))
def test_wrong_values_of_flags_end_in_status_2_and_the_same_sentence(
    command: str, declared: Setting, spelling: str, text: str
) -> None:
    required = COMMANDS[command][1]
    value = declared.kind.parse(text)
    expected = sentence_of(declared, [value] if declared.kind.many else value)
    done = CliRunner().invoke(cli.main, [command, *required, f"{spelling}={text}"])
    assert done.exit_code == 2, done.output
    assert expected in done.stderr
    assert "Traceback" not in done.output


def test_every_setting_has_a_flag_of_its_command() -> None:
    no_flag = {
        "read_kwargs",
        "write_kwargs",
        "cache_kwargs",
        "ranking_strategy",
        "verbose",
        "limits",
        "storage_options",
    }
    for command, (door, _) in COMMANDS.items():
        told = {flag.declared.name for flag in cli.main.commands[command].params if isinstance(flag, SettingFlag)}
        assert {one.name for one in settings_of(*DOORS[door])} - no_flag <= told, command
    limits = {one.name for one in settings_of(Limits)}
    assert limits <= {flag.declared.name for flag in flags_of("split")} & {
        flag.declared.name for flag in flags_of("embed")
    }


@pytest.mark.parametrize(
    "line",
    [
        "dedup --input-embeddings-path in --output-path out --eps 0.1 --eps-to-extract 0.2",
        "dedup --input-embeddings-path in --output-path out --eps-threshold 0.1 --eps-to-extract 0.2",
        "dedup --input-embeddings-path in --output-path out --sim-metric l2 --distance-metric cosine",
        "split --video-dir in --output-path a --output-clip-path b",
        "dedup --input-embeddings-path in --output-path out --eps-thresholds 0.1 0.1000000001",
        "dedup --input-embeddings-path in --output-path out --eps-thresholds 0.9999999999",
    ],
)
def test_two_values_by_two_spellings_and_summaries_of_one_name_are_refused(line: str) -> None:
    done = CliRunner().invoke(cli.main, line.split())
    assert done.exit_code == 2, done.output
    assert re.search(r"give one of them|dedup_summary_", done.stderr)


def test_two_spellings_of_one_value_are_fine() -> None:
    line = "dedup --input-embeddings-path in --output-path out --eps 0.1 --eps-to-extract 0.1"
    done = CliRunner().invoke(cli.main, line.split())
    assert "no such path" in done.stderr


# YAML


def part_cases() -> Iterator[Any]:
    for part, groups in (("split", SPLIT), ("dedup", DEDUP), ("shard", DOORS[ShardWorkflow])):
        for declared in settings_of(*groups):
            if declared.name in names_of(part):
                yield pytest.param(part, declared, id=f"{part}-{declared.name}")


YAML_VALUES = [value for value in WRONG if isinstance(value, (type(None), str, list, dict, float, int))][:-1]


@pytest.mark.parametrize(("part", "declared"), list(part_cases()))
def test_wrong_values_in_yaml_end_in_status_2_and_the_same_sentence(part: str, declared: Setting) -> None:
    for value in [value for value in YAML_VALUES if is_wrong(declared, value)][:6]:
        told = {"video_dir": "in", "output_path": "out", part: {declared.name: value}}
        Path("run.yaml").write_text(yaml.safe_dump(told))
        done = CliRunner().invoke(cli.main, ["run", "--config", "run.yaml"])
        assert done.exit_code == 2, done.output
        assert sentence_of(declared, value) in done.stderr or declared.kind.group is not None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"split": {"limits": {"timeout_s": "5"}}}, "timeout_s must be a number above 0; got '5'"),
        ({"split": {"limits": {"timeout_s": 1e40}}}, "timeout_s must be a number above 0; got 1e+40, which is"),
        ({"split": {"limit": 10**20}}, "limit must be a whole number of at least 0; got 100000000000000000000, which"),
        ({"split": {"limits": {"nosuch": 5}}}, "limits has no parameter 'nosuch' here; it has max_pixels"),
        ({"split": {"limits": 5}}, f"limits must be a mapping of {', '.join(LIMITS)}, or Limits; got 5"),
        ({"split": {"limits": {"max_memory": "much"}}}, "max_memory must be bytes, as in 4GiB, at least 1,048,576"),
        ({"split": {"generate_previews": "no"}}, "generate_previews must be true or false; got 'no'"),
        ({"dedup": {"ranking_strategy": {"metadata_cols": 3}}}, "metadata_cols must be names of columns"),
        ({"dedup": {"ranking_strategy": {"metadata_cols": ["a"], "ascending": ["no"]}}}, "ascending must be true or"),
        ({"dedup": {"ranking_strategy": {"by": "a"}}}, "ranking_strategy has no parameter 'by'"),
        ({"dedup": {"rank_by": "height"}}, "rank_by must be columns with a direction"),
        ({"dedup": {"rank_by": "height:desc", "which_to_keep": "best"}}, "but which_to_keep is given, too; give one"),
        ({"dedup": {"layout": "x"}}, "dedup has no parameter 'layout'"),
        ({"eps": "0.1"}, "eps must lie in [0, 1), or be such numbers by embedder, as in hf=0.05; got '0.1'"),
        ({"video_dir": ["one", 3]}, "input_path must be a path or a list of paths; got ['one', 3]"),
        ({"output_path": 3}, "output_path must be a path that is not empty; got 3"),
    ],
)  # fmt: skip
def test_nested_and_other_values_of_the_file_are_checked_before_any_work(told: dict[str, Any], words: str) -> None:
    Path("run.yaml").write_text(yaml.safe_dump({"video_dir": "in", "output_path": "out", **told}))
    done = CliRunner().invoke(cli.main, ["run", "--config", "run.yaml"])
    assert done.exit_code == 2, done.output
    assert words in done.stderr


def test_limits_and_ranking_can_be_said_in_the_file_and_as_mappings() -> None:
    told = {"split": {"limits": {"timeout_s": 5}}, "dedup": {"ranking_strategy": {"metadata_cols": ["height"],
                                                                                   "ascending": [False]}}}  # fmt: skip
    Path("run.yaml").write_text(yaml.safe_dump({"video_dir": "in", "output_path": "out", **told}))
    done = CliRunner().invoke(cli.main, ["run", "--config", "run.yaml"])
    assert "no such path" in done.stderr
    assert VideoSplitWorkflow("in", "out", limits={"timeout_s": 5}).limits == Limits(timeout_s=5)
    ranking = PairwiseStage(ranking_strategy=told["dedup"]["ranking_strategy"]).strategy
    assert ranking == RankingStrategy.metadata_based(["height"], ascending=False)
    assert PairwiseStage(ranking_strategy={"random_seed": 7}).strategy == RankingStrategy.random(7)
    assert PairwiseStage(rank_by="height:desc").parameters() == PairwiseStage(ranking_strategy=ranking).parameters()
    for flags, words in (
        (["--rank-by", "height:desc", "bitrate:desc"], "no such path"),
        (["--eps", "dct3d=0.4"], "no such path"),
        (["--eps", "hf=0.1,hf=0.2"], "as in hf=0.05; got 'hf=0.1,hf=0.2'"),
        (["--rank-by", "height:desc,bitrate"], "got 'bitrate', which does not end in :asc or :desc"),
        (
            ["--rank-by", "height:desc", "--which-to-keep", "best"],
            "rank_by is 'height:desc', but which_to_keep is given",
        ),
    ):
        done = CliRunner().invoke(cli.main, ["run", "--video-dir", "in", "--output-path", "out", *flags])
        assert words in done.stderr


# Values


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_numpy_scalars_are_made_plain_for_the_record(door: Any) -> None:
    for declared in settings_of(*DOORS[door]):
        kind = {int: np.int64, float: np.float32, bool: np.bool_}.get(type(declared.default))
        if kind is not None:
            made = declared.check(kind(declared.default))
            assert type(made) is type(declared.default)
            json.dumps(made)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KMeansStage(n_clusters="many"), "must be a whole number of at least 1, or 'auto'; got 'many'"),
        (lambda: KMeansStage(n_clusters=np.int64(0)), "must be a whole number of at least 1, or 'auto'; got 0"),
        (lambda: KMeansStage(random_state=None), "random_state must be a whole number in [0, 4294967296); got None"),
        (lambda: KMeansStage(random_state=1 << 32), "random_state must be"),
        (lambda: KMeansStage(init=np.diag([1.0, np.nan, 1])), "an array of shape (3, 3) whose row 1 is not finite"),
        (lambda: KMeansStage(init=np.diag([1.0, 1, 0])), "an array of shape (3, 3) whose row 2 is zero"),
        (lambda: KMeansStage(init=[[1e300, 1]]), "whose row 0 is not finite"),
        (lambda: KMeansStage(init=[["a"]]), "init must be one of k-means++"),
        (lambda: KMeansStage(n_clusters=2, init=np.eye(3)), "init as an array must have shape (n_clusters, d), 2 rows"),
        (lambda: KMeansStage(oversampling_factor="2"), "oversampling_factor must be a number above 0; got '2'"),
        (lambda: KMeansStage(metadata_fields=[3]), "metadata_fields must be names of columns, a list of text; got [3]"),
        (lambda: KMeansStage(read_kwargs={"nosuch": 1}), "got the name 'nosuch'"),
        (lambda: KMeansStage(read_kwargs={"binary_type": "x"}), "got a binary_type that is no type of PyArrow"),
        (lambda: KMeansStage(write_kwargs={"compression": "nosuch"}), "Unsupported compression: nosuch"),
        (lambda: KMeansStage(write_kwargs={"row_group_size": "x"}), "the row_group_size 'x', which is no whole number"),
        (lambda: KMeansStage(write_kwargs={"write_batch_size": 0}), "the write_batch_size 0, which is no whole number"),
        (lambda: KMeansStage(write_kwargs={"max_rows_per_page": -5}), "the max_rows_per_page -5, which is no"),
        (lambda: KMeansStage(write_kwargs={"column_encoding": "PLAIN"}), "column_encoding, of which PyArrow says"),
        (lambda: KMeansStage(write_kwargs={"compression": {"cosine_sim_score": "lzo"}}), "compression, of which"),
        (lambda: KMeansStage(write_kwargs={"storage_options": "secret"}), "storage_options that are str"),
        (lambda: VideoSplitWorkflow("a", "b", read_kwargs={"columns": []}), "got the name 'columns'"),
        (lambda: semdedup.find_leaks("a", "b", "c", eps=True), "eps must lie in [0, 1); got True"),
        (lambda: SemanticDeduplicationWorkflow("a", "b", count_at=0.1, exact_up_to="x"), "exact_up_to must lie"),  # type: ignore
        (lambda: IdentifyDuplicatesStage(eps=None), "eps must lie in [0, 1); got None"),  # type: ignore[arg-type]
        (lambda: SemanticDeduplicationWorkflow("a", "b", layout="x"), "layout must be a Layout"),  # type: ignore
        (lambda: SemanticDeduplicationWorkflow("sftp://a", "b").run("tcp://127.0.0.1:9"), "needs a package"),
    ],
)  # fmt: skip
def test_known_faults_have_their_sentence(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(words)):
        make()


def test_a_number_of_float32_is_what_was_written_and_so_is_the_eps_that_is_told() -> None:
    assert EPS.check(np.float32(0.1)) == 0.1
    assert sentence_of(EPS, np.float32(1.1)) == "eps must lie in [0, 1); got 1.1"
    for eps in (0.1, 1 - 0.7, 0.0953674, 1e-7, 0.0, 0.999999999, float(np.float32(0.1)), 1 / 3):
        assert least_score(float(exact_eps(eps))) == least_score(eps)
        assert len(exact_eps(eps)) <= 12
    assert exact_eps(float(np.float32(0.1))) == "0.1"


def test_one_threshold_alone_is_a_list_of_one() -> None:
    stages = SemanticDeduplicationWorkflow("a", "b", eps=0.1, count_at=0.2).pipeline.stages  # type: ignore[arg-type]
    assert stages[-1].parameters()["count_at"] == [0.2]


def test_a_bare_string_is_one_column_and_options_that_pyarrow_takes_are_taken() -> None:
    assert KMeansStage(metadata_fields="bitrate").inputs.metadata_fields == ("bitrate",)
    write = {"row_group_size": 1000, "compression": "snappy", "data_page_size": 1 << 16, "storage_options": None}
    stage = KMeansStage(read_kwargs={"pre_buffer": False, "buffer_size": 4096}, write_kwargs=write)
    assert stage.io.write_kwargs == write


def test_what_is_left_out_of_a_record_has_a_reason_and_the_rest_is_in_it() -> None:
    left_out = {one.name for one in settings_of(InputOptions, KMeansOptions) if one.unrecorded}
    assert left_out == {"files_per_partition", "max_samples_per_batch"}
    everything = {one.name for one in settings_of(InputOptions, KMeansOptions)}
    assert KMeansStage().parameters().keys() == {"folder"} | everything - left_out
    hard = PairwiseStage(which_to_keep="hard").parameters()
    same_but_ties = RankingStrategy.metadata_based(["cosine_dist_to_cent"], ascending=False)
    assert PairwiseStage(ranking_strategy=same_but_ties).parameters() != hard
    assert PairwiseStage(embedding_dim=4).parameters() != PairwiseStage(embedding_dim=8).parameters()


def test_help_names_every_flag_with_its_sentence() -> None:
    for command in COMMANDS:
        words = " ".join(CliRunner().invoke(cli.main, [command, "--help"], terminal_width=200).output.split())
        for flag in flags_of(command):
            assert flag.opts[0] in words
            assert isinstance(flag, click.Option)
