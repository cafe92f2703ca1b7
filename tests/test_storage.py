"""Paths that are local or in an object store alike; files that are complete or absent; options that never show."""

import os
import pickle
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from semdedup import ParameterError, StorageError
from semdedup.storage.location import Location, locations_of, storage_options_of, without_storage_options
from tests.helpers import STORAGES, location_in

STRANGE = ["with space", "a#b", "a?b", "50%20", "a%2Fb", "a+b", "a[1]", "a*b", "{a,b}", "été ✓", "a:b", "a&b=c", "a'b"]


@pytest.fixture(params=STORAGES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty folder."""
    return location_in(request, tmp_path, "place")


def fill(place: Location, **contents: str) -> None:
    """Write files named by the keywords, with ``__`` for a slash."""
    for name, content in contents.items():
        (place / name.replace("__", "/")).write_bytes(content.encode())


def below(place: Location) -> dict[str, str]:
    """Every file below a place with its content."""
    return {file.url[len(place.url) + 1 :]: place.at(file.url).read_bytes().decode() for file in place.files()}


def test_what_is_written_is_read_whole_and_in_parts(place: Location) -> None:
    file = place / "deep" / "er" / "a.bin"
    file.write_bytes(b"0123456789")
    assert file.read_bytes() == b"0123456789"
    assert (file.read_bytes(2, 5), file.read_bytes(8), file.read_bytes(None, 2)) == (b"234", b"89", b"01")
    with file.open() as stream:
        stream.seek(4)
        assert stream.read(3) == b"456"
    file.write_bytes(b"new")
    assert file.read_bytes() == b"new"
    (place / "a.json").write_json({"b": [1, None], "a": "é"})
    assert (place / "a.json").read_json() == {"a": "é", "b": [1, None]}


def test_what_is_there_is_known(place: Location) -> None:
    fill(place, d__a="1", d__b__c="22")
    assert [(place / name).exists() for name in ("d", "d/a", "d/b", "x", "d/a2")] == [True, True, True, False, False]
    assert [(place / name).is_dir() for name in ("d", "d/a", "d/b", "x")] == [True, False, True, False]
    assert (place / "d" / "a").info() == place.files()[0]


def test_files_are_listed_at_any_depth_in_the_order_of_their_paths(place: Location) -> None:
    fill(place, b="1", a__z="22", a__b__c="333", B="", c="x")
    files = place.files()
    assert [file.url for file in files] == [f"{place}/{name}" for name in ("B", "a/b/c", "a/z", "b", "c")]
    assert [file.n_bytes for file in files] == [0, 3, 2, 1, 1]
    assert [file.url for file in (place / "a").files()] == [f"{place}/a/b/c", f"{place}/a/z"]


def test_a_stamp_changes_with_the_content(place: Location) -> None:
    fill(place, a="1")
    before = (place / "a").info()
    assert (place / "a").info() == before
    if place.is_local:  # clocks of file systems are coarse
        os.utime(f"{place}/a", ns=(0, 0))
    fill(place, a="2")
    assert (place / "a").info() != before


def test_patterns_list_the_files_that_match(place: Location) -> None:
    fill(place, a1="", a2="", b1="", d__a3="")
    assert [file.url for file in (place / "a?").glob()] == [f"{place}/a1", f"{place}/a2"]
    assert [file.url for file in (place / "**/a[23]").glob()] == [f"{place}/a2", f"{place}/d/a3"]
    assert (place / "x*").glob() == []


def test_a_folder_that_matches_stands_for_what_is_below_it_where_that_is_asked_for(place: Location) -> None:
    fill(place, d1__a="", d1__e__b="", d2="", x__d3__c="", x__y__d4="")
    assert [file.url for file in (place / "d*").glob()] == [f"{place}/d2"]
    assert [file.url for file in (place / "d*").glob(deep=True)] == [
        f"{place}/{name}" for name in ("d1/a", "d1/e/b", "d2")
    ]
    assert [file.url for file in (place / "?/d3/*").glob()] == [f"{place}/x/d3/c"]
    assert [file.url for file in (place / "[x]/*/d4").glob()] == [f"{place}/x/y/d4"]


def test_a_pattern_that_cannot_be_is_refused(place: Location) -> None:
    with pytest.raises(ParameterError, match=r"'a\*\*b/c' means nothing"):
        (place / "a**b" / "c").glob()
    with pytest.raises(ParameterError, match="must name the bucket"):
        Location.of("s3://*/a").glob()


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder with one in it that may not be listed, and this process as a user to whom that applies."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "open" / "locked" / "deep").mkdir(parents=True)
        (folder / "open" / "a").write_text("")
        folder.chmod(0o755)
        (folder / "open" / "locked").chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)  # root may read everything
        yield folder
        os.seteuid(user)
        (folder / "open" / "locked").chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_listed_is_an_error_that_names_it_wherever_it_lies(locked: Path) -> None:
    refused = f"cannot list {locked}/open/locked: Permission denied"
    for act in (
        Location.of(locked).files,
        Location.of(f"{locked}/open/locked").files,
        Location.of(f"{locked}/*/*/*").glob,
        Location.of(f"{locked}/**/a").glob,
    ):
        with pytest.raises(StorageError, match=refused):
            act()
    with pytest.raises(StorageError, match=f"cannot look up {locked}/open/locked/deep: Permission denied"):
        Location.of(f"{locked}/open/locked/deep").exists()
    assert [file.url for file in Location.of(f"{locked}/*/a*").glob()] == [f"{locked}/open/a"]


def test_a_link_is_listed_and_not_followed_and_one_in_a_circle_is_no_folder(tmp_path: Path) -> None:
    for name, target in (("itself", "itself"), ("around", str(tmp_path)), ("nowhere", "absent")):
        (tmp_path / name).symlink_to(target)
    assert [Path(file.url).name for file in Location.of(tmp_path).files()] == ["around", "itself", "nowhere"]
    assert not Location.of(tmp_path / "nowhere").exists()
    with pytest.raises(StorageError, match=f"cannot look up {tmp_path}/itself: Too many levels of symbolic links"):
        Location.of(tmp_path / "itself").is_dir()


def test_what_is_absent_lists_as_empty_and_may_be_deleted(place: Location) -> None:
    assert (place / "x").files() == []
    (place / "x").remove()
    (place / "x").remove_tree()
    (place / "x").remove_if_empty()
    (place / "x").move_into(place / "y")
    assert place.files() == []


@pytest.mark.parametrize(
    "act",
    [Location.read_bytes, Location.read_json, Location.info, lambda file: file.open().read()],
    ids=["read", "read JSON", "look up", "open"],
)
def test_reading_what_is_absent_names_the_path(place: Location, act: object) -> None:
    with pytest.raises(StorageError, match=f"cannot (read|look up) {place}/x: ") as found:
        act(place / "x")
    assert isinstance(found.value.__cause__, OSError)


def test_a_file_becomes_visible_when_its_block_ends(place: Location) -> None:
    with (place / "d" / "a").writing() as path:
        path.write_bytes(b"half")
        assert not (place / "d" / "a").exists()
        path.write_bytes(b"whole")
    assert below(place) == {"d/a": "whole"}


def write_half_and_raise(file: Location) -> None:
    with file.writing() as path:
        path.write_bytes(b"half")
        raise RuntimeError


def test_a_block_that_raises_leaves_nothing(place: Location) -> None:
    with pytest.raises(RuntimeError):
        write_half_and_raise(place / "d" / "a")
    assert place.files() == []


def test_a_block_that_raises_keeps_what_was_there(place: Location) -> None:
    fill(place, a="old")
    with pytest.raises(RuntimeError):
        write_half_and_raise(place / "a")
    assert below(place) == {"a": "old"}


def test_a_block_that_writes_nothing_is_an_error(place: Location) -> None:
    with pytest.raises(StorageError, match=f"cannot write {place}/a"), (place / "a").writing():
        pass
    assert place.files() == []


def test_a_folder_moves_to_where_there_was_none(place: Location) -> None:
    fill(place, from__a="1", from__d__b="2")
    (place / "from").move_into(place / "to" / "here")
    assert below(place) == {"to/here/a": "1", "to/here/d/b": "2"}
    assert not (place / "from").exists()


def test_a_folder_moves_into_one_that_holds_files(place: Location) -> None:
    fill(place, from__a="new", from__d__b="2", to__a="old", to__c="3", to__d__e="4")
    (place / "from").move_into(place / "to")
    assert below(place) == {"to/a": "new", "to/c": "3", "to/d/b": "2", "to/d/e": "4"}
    assert not (place / "from").exists()


def test_a_move_that_was_interrupted_goes_on(place: Location) -> None:
    fill(place, from__a="1", from__d__b="2", from__d__c="3")
    (place / "to" / "d" / "b").write_bytes((place / "from" / "d" / "b").read_bytes())
    (place / "from" / "d" / "b").remove()
    for _ in range(2):  # once more does no harm
        (place / "from").move_into(place / "to")
        assert below(place) == {"to/a": "1", "to/d/b": "2", "to/d/c": "3"}


def test_what_a_killed_writer_left_does_not_move_along(tmp_path: Path) -> None:
    place = Location.of(tmp_path)
    fill(place, from__a="1", from__mine_tmp="2")
    with (place / "from" / "b").writing() as path:
        path.write_bytes(b"half")
    path.write_bytes(b"half")  # as if the process had been killed just before the end of the block
    (place / "from").move_into(place / "to")
    assert sorted(below(place)) == ["to/a", "to/b", "to/mine_tmp"]


def test_what_a_killed_writer_left_is_removed_from_the_folder_alone(place: Location) -> None:
    stray = "_0123456789abcdef0123456789abcdef.tmp"
    (place / "absent").remove_unfinished()
    for name in (stray, f"d/{stray}", "mine.tmp", f"x{stray}"):
        (place / name).write_bytes(b"")
    place.remove_unfinished()
    objects = [] if place.is_local else [stray]  # an object is never half written
    assert sorted(below(place)) == sorted([*objects, f"d/{stray}", "mine.tmp", f"x{stray}"])


def test_folders_that_are_not_there_are_told_from_the_inside_out(tmp_path: Path, s3: tuple[str, dict]) -> None:
    place = Location.of(tmp_path)
    assert (place / "a" / "b").absent_folders() == [place / "a" / "b", place / "a"]
    assert place.absent_folders() == Location.of("/").absent_folders() == []
    assert (Location.of(*s3) / "a").absent_folders() == []


def test_a_folder_goes_with_all_that_is_in_it_and_nothing_beside_it(place: Location) -> None:
    fill(place, out__a="1", out__d__b="2", out2__a="3", outer="4", a="5")
    (place / "out").remove_tree()
    assert below(place) == {"out2/a": "3", "outer": "4", "a": "5"}
    assert not (place / "out").exists()


def test_a_file_goes_alone(place: Location) -> None:
    fill(place, a="1", ab="2", d__a="3")
    (place / "a").remove()
    assert below(place) == {"ab": "2", "d/a": "3"}


def test_only_empty_folders_go_if_empty(tmp_path: Path) -> None:
    (tmp_path / "full" / "empty").mkdir(parents=True)
    (Location.of(tmp_path) / "full").remove_if_empty()
    (Location.of(tmp_path) / "full" / "empty").remove_if_empty()
    assert [path.name for path in tmp_path.rglob("*")] == ["full"]


@pytest.mark.parametrize("name", STRANGE)
def test_paths_are_taken_letter_by_letter(place: Location, name: str) -> None:
    fill(place, a1__f="other", axb__f="other", a__f="other", b__f="other", from_a1__f="other", from_axb__f="other")
    others = below(place)
    folder = place / name
    (folder / name).write_bytes(b"1")
    with (folder / "b").writing() as path:
        path.write_bytes(b"22")
    assert below(folder) == {name: "1", "b": "22"}
    assert folder.is_dir()
    assert (folder / name).info().n_bytes == 1
    with (folder / name).open() as stream:
        assert stream.read() == b"1"
    fill(place / f"to {name}", c="3")  # so that files are moved one by one
    folder.move_into(place / f"to {name}")
    assert below(place / f"to {name}") == {name: "1", "b": "22", "c": "3"}
    assert not folder.exists()
    (place / f"to {name}").remove_tree()
    assert below(place) == others


@pytest.mark.slow
def test_more_objects_than_one_page_of_a_listing_has(s3: tuple[str, dict]) -> None:
    place = Location.of(f"{s3[0]}/many", s3[1])
    place.fs.pipe({f"{place}/{i:04d}": b"x" for i in range(1005)})
    assert [file.url for file in place.files()] == [f"{place}/{i:04d}" for i in range(1005)]


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("a/../b", "{here}/b"),
        (Path("a"), "{here}/a"),
        ("./a//b/", "{here}/a/b"),
        ("/x/y", "/x/y"),
        ("file:///x/y", "/x/y"),
        ("file:/x", "{here}/file:/x"),
        ("~/x", "{home}/x"),
        ("s3://b/x/", "s3://b/x"),
        ("s3://b", "s3://b"),
        ("memory://x", "memory://x"),
    ],
    ids=str,
)
def test_relative_paths_are_resolved_where_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert Location.of(path).url == url.format(here=tmp_path, home="/home/me")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "not empty"),
        (b"bytes", "must be text"),
        ("nosuch://x", "'nosuch', which is not known"),
        ("s3://key:SECRET@bucket/x", "carries credentials"),
        ("https://user:SECRET@host/x", "carries credentials"),
    ],
    ids=["empty", "bytes", "unknown protocol", "credentials", "credentials of a host"],
)
def test_paths_that_cannot_be_are_refused_without_repeating_credentials(path: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as found:
        Location.of(path)
    assert "SECRET" not in "".join(traceback.format_exception(found.value, chain=True)).replace(str(path), "")


def test_an_at_sign_behind_the_bucket_is_no_credential() -> None:
    assert Location.of("s3://bucket/me@home/x").url == "s3://bucket/me@home/x"


def test_parts_of_a_path() -> None:
    location = Location.of("s3://bucket/a/b.parquet", {"anon": True})
    assert (location.name, location.parent.url, location.is_local) == ("b.parquet", "s3://bucket/a", False)
    assert (location.parent / "c" / "d").url == "s3://bucket/a/c/d"
    assert location.parent.options == location.at("s3://bucket/x").options == {"anon": True}
    assert Location.of("/a").parent.url == "/"
    assert (Location.of("/") / "a").url == "/a"
    assert Location.of(location) is location


SECRET = "canary-secret-0451"
OPTIONS = {"key": "some-key", "secret": SECRET, "token": SECRET, "client_kwargs": {"aws_secret_access_key": SECRET}}


def test_options_show_in_no_text(s3: tuple[str, dict]) -> None:
    location = Location.of(f"{s3[0]}/x", OPTIONS)
    copied = pickle.loads(pickle.dumps(location))
    assert copied.options == OPTIONS
    for text in (
        repr(location),
        str(location),
        f"{[location]}",
        repr(copied),
        repr({location: 1}),
        repr(location / "y"),
    ):
        assert SECRET not in text


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "{server}"], ids=["no server", "no bucket"])
@pytest.mark.parametrize(
    "act",
    [
        Location.read_bytes,
        Location.files,
        Location.info,
        lambda place: place.write_bytes(b"x"),
        lambda place: place.open().read(),
        lambda place: place.move_into(place.parent / "y") or place.read_bytes(),
    ],
    ids=["read", "list", "look up", "write", "open", "move"],
)
def test_options_show_in_no_error(s3_server: dict, endpoint: str, act: object) -> None:
    real = s3_server["client_kwargs"]["endpoint_url"]
    options = {
        "key": "some-key",
        "secret": SECRET,
        "client_kwargs": {"endpoint_url": endpoint.format(server=real), "region_name": "eu-central-1"},
        "config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 0}},
    }
    place = Location.of("s3://no-such-bucket-0451/x", options)
    try:
        assert act(place) == []  # a listing of nothing is empty
    except StorageError as error:
        assert "s3://no-such-bucket-0451" in str(error)  # noqa: PT017
        assert SECRET not in "".join(traceback.format_exception(error))  # noqa: PT017


def test_a_full_disk_says_what_to_do() -> None:
    message = r"cannot write /x: No space left on device\. Free some space and run the same command again"
    with pytest.raises(StorageError, match=message), Location.of("/x").errors("write"):
        raise OSError(28, "No space left on device")


def test_writing_below_a_file_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path}/file/x"):
        (Location.of(tmp_path / "file") / "x").write_bytes(b"")


def test_storage_options_are_taken_apart_from_those_of_parquet() -> None:
    kwargs = {"storage_options": {"anon": True}, "compression": "zstd"}
    assert storage_options_of(kwargs) == {"anon": True}
    assert without_storage_options(kwargs) == {"compression": "zstd"}
    assert (
        storage_options_of(None) == without_storage_options(None) == storage_options_of({"storage_options": None}) == {}
    )
    assert [place.url for place in locations_of(["/a", "/b"], kwargs)] == ["/a", "/b"]
