"""Pools that are lists: text, CSV and Parquet give the same images, and say which line is wrong."""

import codecs
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raylearn.data.images import read_bytes
from raylearn.errors import InputError, PoolError
from raylearn.scoring.listing import list_pool

REMOTE = "s3://bucket/a%20b,c.jpg?region=eu-north-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of lists and images, with an image beside it."""
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    folder = tmp_path / "lists"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b, c.jpg", 'sub/"d".jpg'):
        (folder / name).write_bytes(name.encode())
    return folder


def listed(
    path: Path, content: bytes | str | dict[str, Any] | None = None, **options: Any
) -> dict[str, tuple[str, str]]:
    """Image id -> uri and content hash of a list, written first where its content is given."""
    if isinstance(content, dict):
        pq.write_table(pa.table(content), path)
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows = list_pool(str(path), **options)[0].table.to_pylist()
    return {row["image_id"]: (row["uri"], row["content_hash"]) for row in rows}


def at(folder: Path, name: str) -> tuple[str, str]:
    return str(folder / name), ""


def test_relative_paths_of_every_kind_of_list_start_at_its_own_folder(folder, monkeypatch):
    names = ["a.jpg", "sub/b, c.jpg"]
    expected = {name: at(folder, name) for name in names}
    assert listed(folder / "l.txt", "\n".join(names)) == expected
    assert listed(folder / "l.csv", 'uri\na.jpg\n"sub/b, c.jpg"\n') == expected
    assert listed(folder / "l.parquet", {"uri": names}) == expected
    monkeypatch.chdir(folder.parent)
    assert listed(Path("lists/l.txt")) == expected
    assert listed(folder / "l.txt", f"{folder}/a.jpg\n") == {f"{folder}/a.jpg": at(folder, "a.jpg")}


def test_a_list_keeps_its_order(folder):
    names = [f"{number}.jpg" for number in (3, 1, 2, 10)]
    assert list(listed(folder / "l.txt", "\n".join(names))) == names


def test_ids_and_hashes_of_a_list_are_kept_and_may_be_missing(folder):
    rows = {
        "uri": ["a.jpg", "sub/b, c.jpg", REMOTE],
        "image_id": ["one", None, "three"],
        "content_hash": ["ab" * 32, "", None],
    }
    expected = {
        "one": (str(folder / "a.jpg"), "ab" * 32),
        "sub/b, c.jpg": at(folder, "sub/b, c.jpg"),
        "three": (REMOTE, ""),
    }
    assert listed(folder / "l.parquet", rows) == expected
    text = f'content_hash,uri,image_id\n{"AB" * 32},a.jpg,one\n,"sub/b, c.jpg",\n,"{REMOTE}",three\n'
    assert listed(folder / "l.csv", text) == expected


@pytest.mark.parametrize("name", ["uri", "path", "image", "file_name"])
def test_the_column_of_paths_may_have_several_names(folder, name):
    assert list(listed(folder / "l.csv", f"x,{name}\n1,a.jpg\n")) == ["a.jpg"]
    assert list(listed(folder / "l.parquet", {"x": [1], name: ["a.jpg"]})) == ["a.jpg"]


def test_the_column_uri_is_preferred(folder):
    assert listed(folder / "l.csv", "path,uri\nx.jpg,a.jpg\n") == {"a.jpg": at(folder, "a.jpg")}


def test_lists_from_windows_are_read_as_others(folder):
    for start in (b"", codecs.BOM_UTF8):
        assert listed(folder / "l.txt", start + b"a.jpg\r\n\r\nb.jpg\r\n").keys() == {"a.jpg", "b.jpg"}
        assert listed(folder / "l.csv", start + b"uri\r\na.jpg\r\n\r\nb.jpg\r\n").keys() == {"a.jpg", "b.jpg"}
    assert listed(folder / "L.TXT", "a.jpg\n").keys() == {"a.jpg"}


FOREIGN = ["sub\\c.jpg", "C:\\me\\pool\\sub\\c.jpg", "/content/pool/sub/c.jpg", "../sub/c.jpg", "data/sub/c.jpg"]


@pytest.mark.parametrize("written", FOREIGN)
def test_a_path_of_another_machine_is_read_where_one_reading_is_possible_with_a_note(written, folder):
    (folder / "sub/c.jpg").write_bytes(b"c")
    notes: list[str] = []
    for name, content in (("l.txt", f"{written}\n"), ("l.csv", f"uri\n{written}\n"), ("l.parquet", {"uri": [written]})):
        found = listed(folder / name, content, tell=notes.append)
        assert found == {"sub/c.jpg": at(folder, "sub/c.jpg")}
        assert notes.pop().startswith(f"{folder / name}: 1 path leads nowhere as written, read otherwise: ")


def test_a_path_that_is_there_as_it_is_written_is_taken_so(folder):
    (folder / "sub\\c.jpg").write_bytes(b"as it is")
    (folder / "sub/c.jpg").write_bytes(b"c")
    notes: list[str] = []
    assert listed(folder / "l.txt", "sub\\c.jpg\n", tell=notes.append) == {"sub\\c.jpg": at(folder, "sub\\c.jpg")}
    assert not notes


def test_a_path_with_two_readings_is_refused_with_both(folder):
    (folder / "sub/a.jpg").write_bytes(b"another")
    with pytest.raises(PoolError, match=r"l.txt:1: 'C:.*a.jpg' can mean .*lists/sub/a.jpg and .*lists/a.jpg: write"):
        listed(folder / "l.txt", "C:\\sub\\a.jpg\n")


def test_a_path_of_another_machine_that_is_nowhere_here_is_a_row_with_the_place(folder):
    assert listed(folder / "l.txt", "D:\\x\\y.jpg\n") == {"D:\\x\\y.jpg": at(folder, "D:\\x\\y.jpg")}


def test_paths_that_a_parquet_file_has_as_bytes_are_text(folder):
    assert list(listed(folder / "l.parquet", {"uri": pa.array([b"a.jpg"], pa.binary())})) == ["a.jpg"]
    with pytest.raises(PoolError, match="cannot be read"):
        listed(folder / "l.parquet", {"uri": pa.array([b"\xff.jpg"], pa.binary())})


def test_a_dictionary_column_is_text_as_any_other(folder):
    column = pa.array(["a.jpg", "b.jpg"]).dictionary_encode()
    assert list(listed(folder / "l.parquet", {"uri": column})) == ["a.jpg", "b.jpg"]


def test_a_name_that_is_no_utf8_can_be_listed_as_text_and_read(folder):
    (folder / os.fsdecode(b"\xe9 1.jpg")).write_bytes(b"odd")
    rows = listed(folder / "l.txt", b"\xe9 1.jpg\n")
    assert list(rows) == ["%E9 1.jpg"]
    assert read_bytes(rows["%E9 1.jpg"][0]) == b"odd"


def test_file_addresses_are_local_files(folder):
    (folder / "50% ?.jpg").write_bytes(b"odd")
    address = f"file://{folder}/50%25%20%3F.jpg"
    assert listed(folder / "l.txt", address) == {address: at(folder, "50% ?.jpg")}
    with pytest.raises(PoolError, match=r"l.txt:1: file://.* leads out of"):
        listed(folder / "l.txt", f"file://{folder}/%2E%2E/secret.jpg\n")


def test_addresses_are_kept_as_they_stand(folder):
    assert listed(folder / "l.txt", f"{REMOTE}\na.jpg\n") == {REMOTE: (REMOTE, ""), "a.jpg": at(folder, "a.jpg")}


@pytest.mark.parametrize(
    "way", ["../secret.jpg", "sub/../../secret.jpg", "{above}/secret.jpg", "out/secret.jpg", "out.jpg"]
)
def test_a_path_out_of_the_folder_is_refused_with_its_line_unless_root_allows_it(folder, way):
    way = way.format(above=folder.parent)
    (folder / "out").symlink_to("..")
    (folder / "out.jpg").symlink_to("../secret.jpg")
    contents = {
        "l.txt": f"a.jpg\n\n{way}\n",
        "l.csv": f"uri\na.jpg\n{way}\n",
        "l.parquet": {"uri": ["a.jpg", "b", way]},
    }
    for name, content in contents.items():
        with pytest.raises(PoolError, match=rf"{name}:3: .* leads out of .*lists, to .*secret.jpg.*--root"):
            listed(folder / name, content)
        assert read_bytes(listed(folder / name, root=folder.parent)[way][0]) == b"secret"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("l.csv", "name,size\nx,1\n", r"no column uri or path or .*, only name, size", id="no column"),
        pytest.param("l.csv", "image_id;uri\na;b\n", r"no column uri .*only image_id;uri", id="another separator"),
        pytest.param("l.csv", "", r"no column uri .*only none", id="empty csv"),
        pytest.param("l.parquet", {"x": [1]}, r"no column uri .*only x", id="no column, parquet"),
        pytest.param("l.csv", "uri,image_id\na.jpg,1\n,2\n", r"l.csv:3: no path or address", id="blank"),
        pytest.param("l.csv", "image_id,uri\n1,a.jpg\n2\n", r"l.csv:3: no path or address", id="short row"),
        pytest.param("l.parquet", {"uri": ["a.jpg", None]}, r"l.parquet:2: no path or address", id="null"),
        pytest.param("l.csv", b"uri\n\xff\xfe.jpg\n", r"l.csv cannot be read: .*UTF-8 at byte 4", id="encoding"),
        pytest.param("l.csv", "uri\n" + "x" * 200_000, r"l.csv cannot be read: .*field larger", id="a huge field"),
        pytest.param(
            "l.csv", "uri,content_hash\na.jpg,12ab\n", r"l.csv:2: content_hash '12ab' is no SHA-256", id="hash"
        ),
        pytest.param("l.txt", b"a\0b.jpg\n", r"l.txt cannot be read: .*null", id="NUL"),
        pytest.param("l.txt", b"s3://bucket/\xff.jpg\n", r"l.txt cannot be read: .*utf-8", id="address not in UTF-8"),
        pytest.param("l.txt", "", r"no images in .*l.txt", id="empty text"),
        pytest.param("l.csv", "uri\n", r"no images in .*l.csv", id="no rows"),
        pytest.param(
            "l.parquet", {"uri": pa.array([], pa.string())}, r"no images in .*l.parquet", id="no rows, parquet"
        ),
        pytest.param("l.parquet", b"PAR1", r"l.parquet cannot be read", id="no parquet"),
        pytest.param("l.txt", "a.jpg\na.jpg\n", r"image id 'a.jpg' is listed twice in the pool", id="twice"),
        pytest.param("l.csv", "uri,image_id\na.jpg,1\nb.jpg,1\n", r"image id '1' is listed twice", id="one id twice"),
        pytest.param(
            "l.json", "[]", r"is neither a folder nor a list: a list ends in .txt, .csv, .parquet", id="another kind"
        ),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_what_is_wrong(folder, name, content, message):
    with pytest.raises(PoolError, match=message):
        listed(folder / name, content)


@pytest.mark.parametrize("secret", ["hunter2", "hun/ter2"])
def test_credentials_in_a_list_are_refused_without_showing_them(folder, secret):
    address = f"s3://AKIA123:{secret}@bucket/x.jpg"
    for name, content in {"l.txt": address, "l.csv": f"uri\n{address}\n", "l.parquet": {"uri": [address]}}.items():
        with pytest.raises(InputError, match="holds credentials") as caught:
            listed(folder / name, content)
        assert "ter2" not in str(caught.value)
        assert "AKIA123" not in str(caught.value)


def whole_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"uri": [f"{number}.jpg" for number in range(50)]}), sink)
    return sink.getvalue().to_pybytes()


@given(st.binary(max_size=200), st.sampled_from([".txt", ".csv", ".parquet"]), st.integers(0, 10_000), st.booleans())
@example(b'uri\n"', ".csv", 0, False)
@example(b"uri,uri\na,b", ".csv", 0, False)
@example(b"uri\n\0", ".csv", 0, False)
@example(b"zz://\xff", ".txt", 0, False)
def test_random_bytes_as_a_list_raise_only_pool_errors(tmp_path_factory, junk, ending, where, inside):
    whole = whole_parquet() if ending == ".parquet" else b"uri,image_id\na.jpg,1\n\xc3\xa4.jpg,2\n"
    where %= len(whole)
    data = whole[:where] + junk + whole[where + len(junk) :] if inside else junk
    path = tmp_path_factory.getbasetemp() / f"junk{ending}"
    path.write_bytes(data)
    try:
        manifest, _ = list_pool(str(path))
    except PoolError:
        return
    assert len(manifest) == len(set(manifest.table["image_id"].to_pylist())) > 0
