"""The process in which decoders run: whatever happens in it is told, and costs nobody else anything."""

import contextlib
import ctypes
import errno
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import distributed
import msgspec
import numpy as np
import psutil
import pytest

from semdedup import Limits, SemdedupError
from semdedup.video import child as isolation
from semdedup.video.child import (
    HEADER,
    TAIL_BYTES,
    Child,
    ChildDied,
    ChildOutOfMemory,
    ChildTimeout,
    borrowed_child,
    end_children,
)
from semdedup.video.job import ClipMade, Outcome, PlannedVideo
from semdedup.video.memory import OUT_OF_MEMORY, ran_out
from semdedup.video.messages import Item, decoder_of, encoded
from semdedup.video.plan import Span
from semdedup.video.probe import Declared, VideoFacts
from semdedup.video.timeline import Timeline
from tests.helpers import files_below
from tests.splits import assert_nothing_half_written, make_texture, splitter
from tests.videos import Decoders, make_video

PLENTY_S = 60.0
MIB = 1 << 20

CLIP = ClipMade(
    {"id": "a", "start_s": 0.5, "n_frames": 12, "audio": False, "why": None, "tracks": [{"kind": "ü"}]},
    (np.arange(4 * 6 * 5 * 3, dtype=np.uint8).reshape(4, 6, 5, 3)[::2, :, ::-1], np.zeros((0, 0, 0, 3), np.uint8)),
    (np.linspace(-1, 1, 7, dtype=np.float32),),
)
PLAN = PlannedVideo(
    VideoFacts(64, 48, 29.97, "h264", "yuv420p", "", "mov", Declared(0, 1.5, 0.0), ("audio track 1: aac",)),
    Timeline(Fraction(1001, 30_000), -5, 45, 44, 45, 1 << 40, (0, 12), ((9, 12),)),
    [Span(0.0, 1.0), Span(1.0, 1.5)],
)


# What is called in the child


def count_to(n: int) -> Iterator[int]:
    yield from range(n)


def signs_of_life(numbers: list[int | None]) -> Iterator[int | None]:
    yield from numbers


def videos_made(_: None) -> Iterator[ClipMade | Outcome | PlannedVideo | None]:
    yield from (PLAN, None, CLIP, Outcome("done", facts={"fps": 25.0}))


def pid(_: None) -> Iterator[int]:
    yield os.getpid()


def digest(content: bytes) -> Iterator[str]:
    yield hashlib.sha256(content).hexdigest()


def zeros(n_bytes: int) -> Iterator[np.ndarray]:
    for value in (1, 2):
        yield np.full(n_bytes, value, dtype=np.uint8)


def fail(_: None) -> Iterator[int]:
    yield 1
    raise KeyError("what was not there")


def fill_the_disk(_: None) -> Iterator[int]:
    yield 1
    raise OSError(errno.ENOSPC, "No space left on device", "/a/file")


def give_what_cannot_be_sent(_: None) -> Iterator[Any]:
    yield 1
    yield (lambda: None)


def write_instead(message: bytes) -> Iterator[int]:
    """What a decoder that was taken over can do: it writes to its parent by itself."""
    replies = isolation._parent.replies
    replies.write(message)
    replies.flush()
    time.sleep(600)
    yield 0


class Harm:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def allocate(n_bytes: int) -> Iterator[int]:
    yield len(bytearray(n_bytes))


def hold(n_bytes: int) -> Iterator[int]:
    """Takes memory and goes on."""
    held = bytearray(n_bytes)
    yield 1
    time.sleep(600)
    yield len(held)


def chatter(_: None) -> Iterator[int]:
    """Says much on the pipes that a library of C would write to."""
    for i in range(3):
        print("printed", i, flush=True)
        os.write(1, b"\0" * 1000)
        os.write(2, b"a warning\n" * 20_000)
        yield i


def take_a_break(seconds: list[float]) -> Iterator[str | None]:
    yield "begun"
    for pause in seconds:
        time.sleep(pause)
        yield None
    yield "over"


def end_by(how: str) -> Iterator[int]:
    yield 1
    yield 2
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os.write(2, b"a warning\n" * 100_000)
        print("the library gives up", file=sys.stderr, flush=True)
        os._exit(7)
    time.sleep(600)


@pytest.fixture(scope="module")
def kept() -> Iterator[Child]:
    """A process for the tests that leave it as it was."""
    child = Child()
    yield child
    child.kill()


@pytest.fixture(scope="module")
def spare() -> Iterator[list[Child]]:
    """Processes that start up while a test runs: that takes a second."""
    started: list[Child] = []
    yield started
    for one in started:
        one.kill()


@pytest.fixture
def child(spare: list[Child]) -> Iterator[Child]:
    """A process that may come to harm."""
    mine = spare.pop() if spare else Child()
    spare.append(Child())
    yield mine
    mine.kill()


@pytest.fixture
def usable(kept: Child) -> Iterator[Child]:
    """The process of the module, which can be used afterwards just as before."""
    (before,) = kept.call(pid, None, PLENTY_S)
    yield kept
    assert list(kept.call(pid, None, PLENTY_S)) == [before]


def gone(number: int, seconds: float = 20) -> bool:
    """Whether a process ends in time. One that has ended and that nobody has asked for its status does not count."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        deadline = time.monotonic() + seconds
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    return True


def pid_of(process: Child) -> int:
    return process._process.pid


# Calls that end well


def test_what_a_function_yields_comes_in_order(usable: Child) -> None:
    assert list(usable.call(count_to, 1000, PLENTY_S)) == list(range(1000))
    assert list(usable.call(count_to, 0, PLENTY_S)) == []


def test_a_worker_may_have_many_files_open() -> None:
    with contextlib.ExitStack() as files:
        for _ in range(1030):
            files.enter_context(open(os.devnull))
        one = Child()
        files.callback(one.kill)
        assert list(one.call(count_to, 3, PLENTY_S)) == [0, 1, 2]


def test_it_is_another_process_and_the_same_for_every_call(kept: Child) -> None:
    pids = [next(iter(list(kept.call(pid, None, PLENTY_S)))) for _ in range(3)]
    assert set(pids) == {pid_of(kept)}
    assert pids[0] != os.getpid()


def test_signs_of_life_are_not_passed_on(usable: Child) -> None:
    assert list(usable.call(signs_of_life, [None, 1, None, None, 0, None], PLENTY_S)) == [1, 0]


def test_large_objects_pass_in_both_directions(usable: Child) -> None:
    content = os.urandom(1 << 20) * 40
    assert list(usable.call(digest, content, PLENTY_S)) == [hashlib.sha256(content).hexdigest()]
    sent = list(usable.call(zeros, 40 << 20, PLENTY_S))
    assert [(len(array), array.min(), array.max()) for array in sent] == [(40 << 20, 1, 1), (40 << 20, 2, 2)]


def test_answers_are_what_they_were_there_down_to_types_and_arrays_can_be_written_to(usable: Child) -> None:
    plan, clip, outcome = usable.call(videos_made, None, PLENTY_S)
    assert plan == PLAN
    assert outcome == Outcome("done", facts={"fps": 25.0})
    assert isinstance(clip, ClipMade)
    assert clip.facts == CLIP.facts
    for sent, made in zip(clip.samples + clip.sounds, CLIP.samples + CLIP.sounds, strict=True):
        assert (sent.dtype, sent.shape) == (made.dtype, made.shape)
        np.testing.assert_array_equal(sent, made)
        sent += 1


def test_what_a_library_prints_does_not_get_between_the_answers(usable: Child) -> None:
    assert list(usable.call(chatter, None, PLENTY_S)) == [0, 1, 2]
    assert 0 < len(usable._said._said) <= TAIL_BYTES  # the rest is not kept


def test_modules_are_found_there_as_they_were_here_when_it_started(
    usable: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text(
        "from collections.abc import Iterator\ndef double(n) -> Iterator[int]:\n    yield 2 * n\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    late = Child()
    assert list(late.call(only_here.double, 4, PLENTY_S)) == [8]
    late.kill()
    with pytest.raises(SemdedupError, match="No module named 'only_here'"):
        list(usable.call(only_here.double, 4, PLENTY_S))


# Calls that fail


def test_an_exception_is_a_defect_and_comes_with_its_traceback(usable: Child) -> None:
    answers = usable.call(fail, None, PLENTY_S)
    assert next(answers) == 1
    with pytest.raises(SemdedupError, match=r"(?s)fail failed:.*Traceback.*in fail.*KeyError: 'what was not there'"):
        next(answers)


def test_an_error_of_the_disk_comes_as_what_it_is(usable: Child) -> None:
    answers = usable.call(fill_the_disk, None, PLENTY_S)
    assert next(answers) == 1
    with pytest.raises(OSError, match="No space left") as error:
        next(answers)
    assert error.value.errno == errno.ENOSPC


def test_an_answer_that_cannot_be_sent_is_a_defect(usable: Child) -> None:
    answers = usable.call(give_what_cannot_be_sent, None, PLENTY_S)
    assert next(answers) == 1
    with pytest.raises(SemdedupError, match="give_what_cannot_be_sent failed"):
        next(answers)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("segfault", "ended by SIGSEGV"),
        ("exit", "status 7: the library gives up"),
    ],
)
def test_a_crash_tells_how_and_what_came_before_it_counts(how: str, told: str, child: Child) -> None:
    answers = child.call(end_by, how, PLENTY_S)
    assert [next(answers), next(answers)] == [1, 2]
    with pytest.raises(ChildDied, match=told):
        next(answers)
    assert not child.alive
    assert not psutil.pid_exists(pid_of(child))  # not as a zombie either


def test_a_kill_from_outside_in_the_middle_of_a_stream_is_told(child: Child) -> None:
    answers = child.call(take_a_break, [600.0], PLENTY_S)
    assert next(answers) == "begun"  # at once, not at the end
    os.kill(pid_of(child), signal.SIGKILL)
    with pytest.raises(ChildDied, match="ended by SIGKILL"):
        next(answers)
    assert not child.alive


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, "ended by SIGTERM"), (40, "ended by signal 40")])
def test_a_call_of_a_process_that_has_ended_is_told_by_any_signal(number: int, told: str) -> None:
    ended = Child()
    os.kill(pid_of(ended), number)
    assert gone(pid_of(ended))
    with pytest.raises(ChildDied, match=told):
        list(ended.call(count_to, 3, PLENTY_S))
    ended.kill()
    ended.kill()  # twice does no harm
    assert not ended.alive


def test_silence_for_too_long_ends_the_process(child: Child) -> None:
    answers = child.call(take_a_break, [600.0], 0.3)
    assert next(answers) == "begun"
    started = time.monotonic()
    with pytest.raises(ChildTimeout, match=r"no progress for 0\.3 s"):
        next(answers)
    assert 0.2 < time.monotonic() - started < 30
    assert not psutil.pid_exists(pid_of(child))


def test_signs_of_life_put_the_end_off(usable: Child) -> None:
    """Together they are longer than the limit; each one alone is not."""
    assert list(usable.call(take_a_break, [0.2] * 5, 0.9)) == ["begun", "over"]


def test_the_first_answer_may_take_as_long_as_a_process_takes_to_start(
    usable: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(usable.call(count_to, 1, PLENTY_S)) == [0]
    monkeypatch.setattr(isolation, "SECONDS_TO_START", 0.2)
    with pytest.raises(ChildTimeout, match=r"no progress for 0\.2 s"):
        list(Child().call(count_to, 1, 0.01))  # Python itself takes longer


def test_a_call_that_is_given_up_ends_the_process_unless_it_was_complete(child: Child) -> None:
    """What it would still send would be taken for the answer to the next call."""
    answers = child.call(count_to, 5, PLENTY_S)
    assert list(answers) == [0, 1, 2, 3, 4]
    answers.close()  # type: ignore[attr-defined]
    assert child.alive
    answers = child.call(count_to, 5, PLENTY_S)
    assert next(answers) == 0
    answers.close()  # type: ignore[attr-defined]
    assert not child.alive
    assert not psutil.pid_exists(pid_of(child))


# Answers that harm


def test_what_is_no_answer_of_the_function_ends_the_process(child: Child) -> None:
    message = encoded(Item("text"))
    with pytest.raises(ChildDied, match="cannot be read: Expected `int`, got `str`"):
        list(child.call(write_instead, HEADER.pack(len(message)) + message, PLENTY_S))
    assert not child.alive


def test_an_answer_that_is_a_pickle_is_refused_and_runs_nothing(child: Child, tmp_path: Path) -> None:
    message = pickle.dumps(("item", Harm(str(tmp_path / "harm"))))
    with pytest.raises(ChildDied, match="cannot be read"):
        list(child.call(write_instead, HEADER.pack(len(message)) + message, PLENTY_S))
    assert not child.alive
    assert not (tmp_path / "harm").exists()
    pickle.loads(message)
    assert (tmp_path / "harm").exists()


def test_an_answer_larger_than_its_memory_is_refused_before_it_comes(child: Child) -> None:
    with pytest.raises(ChildDied, match="announced an answer of 4,611,686,018,427,387,904 bytes"):
        list(child.call(write_instead, HEADER.pack(1 << 62), PLENTY_S))
    assert not child.alive


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        (["uint8", [2, 3], b"12345"], "5 bytes for an array"),
        (["uint8", [-1, -6], b"123456"], "no array"),
        (["O", [1], b"12345678"], "no array"),
        (["uint8", [4], "text"], "string argument"),
        ({}, "not enough values"),
        (msgspec.msgpack.Ext(5, b""), "no such type"),
    ],
)
def test_an_array_is_refused_unless_its_bytes_are_those_of_its_shape(sample: Any, told: str) -> None:
    answer = {"type": "ClipMade", "facts": {}, "samples": [sample]}
    with pytest.raises(Exception, match=told):
        decoder_of(videos_made).decode(encoded(Item(answer)))


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", ""])
def test_an_id_that_leads_out_of_the_folder_of_clips_is_refused(name: str) -> None:
    answer = {"type": "ClipMade", "facts": {"id": name}}
    with pytest.raises(msgspec.ValidationError, match="no id of a clip"):
        decoder_of(videos_made).decode(encoded(Item(answer)))


# Memory


def test_memory_that_a_call_may_not_take_ends_the_process_and_other_limits_come_with_other_calls(child: Child) -> None:
    assert list(child.call(allocate, 100 * MIB, PLENTY_S)) == [100 * MIB]
    assert list(child.call(allocate, 10 * MIB, PLENTY_S, 64 * MIB)) == [10 * MIB]
    assert list(child.call(allocate, 100 * MIB, PLENTY_S)) == [100 * MIB]
    with pytest.raises(ChildOutOfMemory, match=r"than the limit of 0\.0625 GiB"):
        list(child.call(allocate, 100 * MIB, PLENTY_S, 64 * MIB))
    assert not child.alive


def test_memory_that_is_nearly_used_up_ends_the_process_before_a_library_has_to_do_without(child: Child) -> None:
    answers = child.call(hold, 450 * MIB, PLENTY_S, 512 * MIB)  # the rest is for imports
    with pytest.raises(ChildOutOfMemory, match=f"status {OUT_OF_MEMORY}"):
        list(answers)


CRASH = """
import ctypes
import sys
from collections.abc import Iterator
from semdedup.video.child import Child

def crash(n_bytes: int) -> Iterator[int]:
    held = b"1" * n_bytes
    ctypes.string_at(0)
    yield len(held)

if __name__ == "__main__":
    import crash as module
    for n_bytes in (1, 200 << 20):
        try:
            list(Child().call(module.crash, n_bytes, 60, 300 << 20))
        except Exception as error:
            print(type(error).__name__, error)
"""


def test_a_crash_near_the_limit_is_put_down_to_memory(tmp_path: Path) -> None:
    """In a program of its own: of what this one has had, Linux would say that its child had it."""
    (tmp_path / "crash.py").write_text(CRASH)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "crash.py")], env=environment, capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ChildDied", "ChildOutOfMemory"]
    assert done.stdout.count("ended by SIGSEGV") == 2
    assert [ran_out(*ended, 100) for ended in ((-6, 49), (-6, 50), (1, 99), (OUT_OF_MEMORY, 0))] == [
        *(False, True, False, True)
    ]


# The pool


@pytest.fixture
def pool() -> Iterator[None]:
    """An empty pool, and an empty one afterwards."""
    end_children()
    before = children()
    yield
    end_children()
    assert children() == before


def children() -> list[int]:
    """Processes of the pool below this one, also those that have ended and that nobody has asked for."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or isolation.START in process.cmdline():
                found.append(process.pid)
    return found


@pytest.mark.usefixtures("pool")
def test_a_process_that_is_given_back_is_lent_again() -> None:
    lent = []
    for _ in range(3):
        with borrowed_child() as one:
            lent.append(pid_of(one))
    assert len(set(lent)) == 1


@pytest.mark.usefixtures("pool")
def test_those_who_borrow_at_the_same_time_get_processes_of_their_own() -> None:
    def work(n: int) -> tuple[int, list[int]]:
        with borrowed_child() as one:
            return pid_of(one), list(one.call(count_to, n, PLENTY_S))

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(work, [300, 400] * 6))
    assert [answers for _, answers in found] == [list(range(n)) for n in [300, 400] * 6]
    assert len({number for number, _ in found}) <= 2
    with borrowed_child() as one, borrowed_child() as other:
        assert pid_of(one) != pid_of(other)


@pytest.mark.usefixtures("pool")
def test_a_process_that_came_to_harm_is_not_lent_again() -> None:
    with borrowed_child() as one:
        os.kill(pid_of(one), signal.SIGKILL)
        with pytest.raises(ChildDied):
            list(one.call(count_to, 3, PLENTY_S))
    with borrowed_child() as other:
        next(iter(other.call(count_to, 3, PLENTY_S)))  # given up
    with borrowed_child() as third:
        assert third.alive
    assert len({pid_of(one), pid_of(other), pid_of(third)}) == 3


@pytest.mark.usefixtures("pool")
def test_a_process_that_ends_while_nobody_uses_it_is_replaced() -> None:
    with borrowed_child() as one:
        os.kill(pid_of(one), signal.SIGSTOP)  # alive when it is given back
    os.kill(pid_of(one), signal.SIGKILL)
    assert gone(pid_of(one))
    with borrowed_child() as other:
        assert other.alive
        assert pid_of(other) != pid_of(one)


@pytest.mark.usefixtures("pool")
def test_an_exception_of_the_borrower_costs_no_process() -> None:
    with pytest.raises(ZeroDivisionError), borrowed_child() as one:
        raise ZeroDivisionError
    with borrowed_child() as other:
        assert other is one


@pytest.mark.usefixtures("pool")
def test_at_the_end_no_process_is_left() -> None:
    with borrowed_child() as one, borrowed_child() as other:
        assert set(children()) >= {pid_of(one), pid_of(other)}
    end_children()
    assert not set(children()) & {pid_of(one), pid_of(other)}
    assert not one.alive
    assert not other.alive


# The end of the parent

PARENT = """
import time
from semdedup.video.child import borrowed_child
from tests.test_child import pid, take_a_break

if __name__ == "__main__":
    with borrowed_child() as idle, borrowed_child() as busy:
        answers = busy.call(take_a_break, [600.0], 600)
        next(answers)
        print(*idle.call(pid, None, 60), busy._process.pid, flush=True)
        time.sleep(600)
"""


@pytest.mark.slow
def test_the_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root}
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert [psutil.pid_exists(number) for number in pids] == [True, True]
        parent.kill()
    assert [gone(number) for number in pids] == [True, True]


# Workers


def processes_of_workers(client: distributed.Client) -> list[psutil.Process]:
    """Everything that the workers have started and that has not ended, or whose end nobody has noticed."""
    return [process for pid in client.run(os.getpid).values() for process in psutil.Process(pid).children()]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short videos, and among them one that takes a while."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a.mp4", "b.mp4", "y.mp4", "z.mp4"):
        make_texture(folder / name, ord(name[0]))
    make_video(folder / "long.mp4", 250, size=(320, 240), rate=10)
    return folder


def test_a_decoder_that_crashes_costs_its_video_and_no_worker(
    videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workers = client.run(os.getpid)
    with Decoders(videos / "long.mp4", signal.SIGKILL) as hit:
        result = splitter(videos, tmp_path / "out").run(client)
    assert len(hit.pids) == 1
    rows = {row["video"]: row for row in result.videos}
    assert {name: row["status"] for name, row in rows.items() if name != "long.mp4"} == dict.fromkeys(
        ["a.mp4", "b.mp4", "y.mp4", "z.mp4"], "done"
    )
    long = rows["long.mp4"]
    assert (long["status"], long["reason"]) == ("quarantined", "decode_error")
    assert "ended by SIGKILL" in long["detail"]
    assert long["duration_s"] == 25.0  # what was known of it before
    assert len(long["clips"]) < 13
    assert result.clips == result.embedded == 8 + len(long["clips"])
    assert len(files_below(tmp_path / "out" / "clips")) == result.clips
    assert_nothing_half_written(tmp_path / "out")
    assert not list((tmp_path / "out").glob("_scratch*"))
    assert client.run(os.getpid) == workers
    assert processes_of_workers(client) == []


def test_a_video_that_takes_too_much_memory_costs_itself_and_no_worker(
    videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    huge = tmp_path / "huge.avi"
    with av.open(str(huge), "w") as file:
        stream: Any = file.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8000, 8000, "yuvj444p"
        file.mux(stream.encode(av.VideoFrame(8000, 8000, "yuvj444p")))
        file.mux(stream.encode(None))
    workers = client.run(os.getpid)
    few = [videos / "a.mp4", huge, videos / "b.mp4"]
    result = splitter(few, tmp_path / "out", limits=Limits(max_memory=128 * MIB), upload_clips=False).run(client)
    rows = {row["video"]: row for row in result.videos}
    assert [rows[path.name]["status"] for path in few] == ["done", "quarantined", "done"]
    assert rows[huge.name]["reason"] == "out_of_memory"
    assert "limit of 0.125 GiB" in rows[huge.name]["detail"]
    assert client.run(os.getpid) == workers
    assert processes_of_workers(client) == []


def refuse(frames: np.ndarray) -> np.ndarray:
    """An embedder of a user that fails in the middle of a video."""
    raise ZeroDivisionError("the embedder fails")


def test_no_process_is_left_after_a_run_that_fails(videos: Path, client: distributed.Client, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="the embedder fails"):
        splitter(videos, tmp_path / "out", embedding_algorithm=refuse).run(client)
    deadline = time.monotonic() + 20  # a task of the other worker may be at work on its video still
    while processes_of_workers(client) and time.monotonic() < deadline:
        client.run(end_children)
        time.sleep(0.1)
    assert processes_of_workers(client) == []


def test_a_dry_run_leaves_no_process(videos: Path, client: distributed.Client, tmp_path: Path) -> None:
    assert len(list(splitter(videos, tmp_path / "out").plan(client))) == 8
    assert processes_of_workers(client) == []


def environment_of(_: None) -> Iterator[list[str]]:
    yield sorted(os.environ)


def test_credentials_in_the_environment_do_not_reach_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY", "HOMEBREW_GITHUB_API_TOKEN", "LANGSMITH_API_KEY", "NVIDIA_API_KEY", "LC_TOKEN"}
    for name in secrets:
        monkeypatch.setenv(name, "canary-secret-0451")
    child = Child()
    try:
        (names,) = child.call(environment_of, None, 10)
    finally:
        child.kill()
    assert not secrets & set(names)
    assert "PATH" in names
