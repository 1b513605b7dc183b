"""Groups of images: tables, stems, folders, and what a data set makes of them."""

import pytest

from raylearn.data.formats import read_dataset
from raylearn.data.groups import GroupRows, folder_of, group_of, groups_of, read_groups
from raylearn.errors import DatasetError
from tests.unit.test_formats_yolo import make


def _table(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    return path


def test_a_table_names_images_by_id_or_by_stem(tmp_path):
    assert read_groups(_table(tmp_path, "image,group\na/1.jpg,x\n")) == {"a/1.jpg": "x"}
    table = GroupRows(read_groups(_table(tmp_path, "stem,split,group\n1,train,x\n2,val,y\n")))
    assert groups_of(["a/1.jpg", "b/3.jpg"], table) == {"a/1.jpg": "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "expected the columns image .or stem. and group, got a, b"),
        ("", "got none"),
        ("image,group\na.jpg,\n", "groups.csv:2: group is empty"),
        ("image,group\n,x\n", "groups.csv:2: image is empty"),
        ("image,group\na.jpg,x\na.jpg,y\n", "groups.csv:3: 'a.jpg' has two groups, 'x' and 'y'"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_line(tmp_path, text, said):
    with pytest.raises(DatasetError, match=said):
        read_groups(_table(tmp_path, text))


def test_a_data_set_is_refused_with_the_line_of_its_table(tmp_path):
    make(tmp_path, train={"a": "", "b": ""})
    table = _table(tmp_path, "image,group\nimages/train/a.png,x\nimages/train/a.png,y\n")
    with pytest.raises(DatasetError) as refused:
        read_dataset(tmp_path, "yolo")
    assert str(refused.value).startswith(f"{table}:3: 'images/train/a.png' has two groups")


def test_a_stem_that_fits_two_images_is_refused():
    with pytest.raises(DatasetError, match="the stem '1' fits 2 images"):
        groups_of(["a/1.jpg", "b/1.jpg"], GroupRows({"1": "x"}))


def test_the_folder_of_an_image_is_what_stands_before_its_name():
    assert folder_of("clip7/001.jpg") == "clip7"


def test_a_groups_file_beside_a_data_set_names_the_clips_of_its_pool(tmp_path):
    make(tmp_path, train={"a": "", "b": ""})
    _table(tmp_path, "stem,group\na,x\nv,y\n")
    dataset = read_dataset(tmp_path, "yolo")
    assert [image.clip_id for image in dataset.pool] == ["x", ""]
    assert not dataset.notes


def test_a_group_in_pool_and_test_is_noted(tmp_path):
    make(tmp_path, train={"a": "", "b": ""})
    _table(tmp_path, "stem,group\na,x\nv,x\n")
    (note,) = read_dataset(tmp_path, "yolo").notes
    assert "1 groups, the first 'x', have images in the pool and in the test split" in note


WINDOWS = (
    "images\\train\\a.png",
    "C:\\me\\set\\images\\train\\a.png",
    "/content/set/images/train/a.png",
    "./images/train/a.png",
)


@pytest.mark.parametrize("written", WINDOWS)
def test_a_path_of_another_machine_names_the_image_that_it_can_mean(tmp_path, written):
    make(tmp_path, train={"a": "", "b": ""})
    path = _table(tmp_path, f"image,group\n{written},x\n")
    dataset = read_dataset(tmp_path, "yolo")
    assert [image.clip_id for image in dataset.pool] == ["x", ""]
    assert group_of(path)("images/train/a.png") == "x"
    assert group_of(path)("images/train/b.png") == "image images/train/b.png"


def test_a_path_that_can_mean_two_images_is_refused_with_both():
    rows = GroupRows({"C:\\set\\one\\a.png": "x"})
    with pytest.raises(DatasetError, match=r"can mean 'one/a.png' and 'set/one/a.png': name images by their ids"):
        groups_of(["one/a.png", "set/one/a.png"], rows)


@pytest.mark.parametrize("ids", [["a.png", "data/a.png"], ["data/a.png", "a.png"]])
def test_an_id_is_not_read_as_the_path_of_another_image(ids):
    assert groups_of(ids, GroupRows({"data/a.png": "x"})) == {"data/a.png": "x"}
    one_by_one = GroupRows({"data/a.png": "x"})  # where nobody knows which other images there are
    with pytest.raises(DatasetError, match=f"'data/a.png' can mean '{ids[0]}' and '{ids[1]}'"):
        [one_by_one.group_of(image_id) for image_id in ids]


def test_an_image_that_two_paths_give_two_groups_is_refused_with_both():
    rows = GroupRows({"C:\\s\\a.png": "x", "D:\\t\\a.png": "y"})
    with pytest.raises(DatasetError, match=r"'a.png' can be 'C:.*a.png' and 'D:.*a.png'"):
        rows.group_of("a.png")


def test_rows_that_name_no_image_are_told_and_refused_where_none_does(tmp_path):
    make(tmp_path, train={"a": "", "b": ""})
    _table(tmp_path, "image,group\nimages/train/a.png,x\nD:\\other\\c.png,y\n")
    (note,) = read_dataset(tmp_path, "yolo").notes
    assert "groups.csv: 1 of 2 rows name no image of the data set, the first 'D:\\\\other\\\\c.png'" in note
    assert note.endswith(f"looked for below {tmp_path}")
    _table(tmp_path, "image,group\nD:\\other\\c.png,y\n")
    with pytest.raises(DatasetError, match="its rows name no image of the data set"):
        read_dataset(tmp_path, "yolo")
