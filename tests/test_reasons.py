"""Every reason for which a video or a clip is put into quarantine is in its table, with its sentence."""

import ast
import errno
from collections.abc import Iterator
from pathlib import Path

import av.error
import pytest

import semdedup.video
from semdedup.video.quarantine import CLIP_REASONS, OF_THE_MOMENT, REASONS, ClipFault, VideoFault, pyav_errors
from semdedup.video.records import QUARANTINED

SOURCES = sorted(Path(semdedup.video.__file__).parent.rglob("*.py"))


def raised(tree: ast.AST) -> Iterator[str]:
    """Reasons that are written in ``VideoFault(reason, …)`` and ``Outcome("quarantined", reason, …)``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        arguments = [argument.value if isinstance(argument, ast.Constant) else argument for argument in node.args]
        if node.func.id == "VideoFault":
            assert isinstance(arguments[0], str), ast.unparse(node)
            yield arguments[0]
        elif node.func.id == "Outcome" and len(arguments) > 1:
            status = QUARANTINED if isinstance(arguments[0], ast.Name) else arguments[0]
            if status == QUARANTINED and isinstance(arguments[1], str):
                yield arguments[1]


def test_every_reason_that_is_raised_is_in_the_table_and_the_other_way_round() -> None:
    found = {reason for path in SOURCES for reason in raised(ast.parse(path.read_text()))}
    assert found == set(REASONS)


def test_a_reason_that_is_not_in_the_table_is_a_defect() -> None:
    with pytest.raises(KeyError, match="add it there"):
        VideoFault("bad_mood", "")
    with pytest.raises(KeyError, match="add it there"):
        ClipFault("bad_mood", "")
    assert REASONS.keys() | CLIP_REASONS.keys() >= OF_THE_MOMENT


def test_only_errors_of_pyav_are_the_fault_of_the_video() -> None:
    with pytest.raises(VideoFault, match="decode_error"), pyav_errors():
        raise ValueError("a header is malformed")
    with pytest.raises(ZeroDivisionError), pyav_errors():
        _ = 1 // 0
    with pytest.raises(OSError, match="full"), pyav_errors():
        raise av.error.OSError(28, "the disk is full")
    with pytest.raises(MemoryError), pyav_errors():  # of the process: `child` tells it
        raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")


def test_a_disk_that_fails_while_a_clip_is_written_is_no_fault_of_the_video() -> None:
    error = av.error.OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"), pyav_errors(writing=True):
        raise error
    with pytest.raises(VideoFault, match="decode_error"), pyav_errors():  # the file itself is read to tell
        raise error
