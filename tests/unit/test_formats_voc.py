"""Reading Pascal VOC data sets: lists, strict XML, and nothing outside of the folder."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raylearn.data.formats import examine_dataset, read_dataset
from raylearn.errors import DatasetError

_shade = iter(range(1, 10_000_000))


def write_image(path: Path) -> Path:
    """A BMP of 40x20 whose bytes no other image of the test has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(_shade)
    Image.new("RGB", (40, 20), (number & 255, number >> 8 & 255, number >> 16)).save(path, "BMP")
    return path


def box(name: object = "cell", xmin: object = 11, ymin: object = 6, xmax: object = 30, ymax: object = 15) -> str:
    corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"


def add(root: Path, stem: str, *objects: str, split: str = "train") -> None:
    write_image(root / "JPEGImages" / f"{stem}.jpg")
    write_xml(root, stem, "<annotation>\n" + "\n".join(objects) + "\n</annotation>")
    write_list(root, split, f"{stem}\n")


def write_xml(root: Path, stem: str, text: str | bytes) -> None:
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    (root / "Annotations" / f"{stem}.xml").write_bytes(data)


def write_list(root: Path, split: str, text: str) -> None:
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    with (root / f"ImageSets/Main/{split}.txt").open("a") as file:
        file.write(text)


def make(root: Path, *objects: str) -> Path:
    add(root, "a", *(objects or [box()]))
    add(root, "v", box("platelet"), split="val")
    return root


def refusal(path: Path, **arguments: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        read_dataset(path, "voc", **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_corners_are_one_based_and_inclusive(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path, box(), box("platelet", 1, 1, 40, 20)), "voc")
    assert [image.image_id for image in dataset.images()] == ["JPEGImages/a.jpg", "JPEGImages/v.jpg"]
    assert dataset.class_names == ("cell", "platelet")
    assert dataset.truth["JPEGImages/a.jpg"].boxes.tolist() == [[10, 5, 30, 15], [0, 0, 40, 20]]
    assert dataset.truth["JPEGImages/a.jpg"].class_ids.tolist() == [0, 1]


def test_box_one_pixel_out_is_clipped_and_further_is_refused(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path / "one", box("cell", 0, 0, 41, 21)), "voc")
    assert dataset.truth["JPEGImages/a.jpg"].boxes.tolist() == [[0, 0, 40, 20]]
    assert "2.0 pixels out" in refusal(make(tmp_path / "two", box("cell", 1, 1, 42, 20)))


def test_decimals_parts_and_polygons(tmp_path: Path) -> None:
    part = "<part><name>nucleus</name><bndbox><xmin>1</xmin></bndbox></part>"
    polygon = "<polygon><x1>1</x1><y1>oops</y1></polygon>"
    odd = box("cell", "11.5", " 6 ", "30.25", "15").replace(
        "</object>", f"{part}{polygon}<difficult>1</difficult></object>"
    )
    dataset = read_dataset(make(tmp_path, odd, box("platelet")), "voc")
    assert dataset.truth["JPEGImages/a.jpg"].boxes.tolist() == [[10.5, 5, 30.25, 15], [10, 5, 30, 15]]


def test_default_splits(tmp_path: Path) -> None:
    def splits() -> list[list[str]]:
        dataset = read_dataset(tmp_path, "voc")
        return [[Path(image.uri).stem for image in images] for images in (dataset.pool, dataset.test)]

    make(tmp_path)
    write_list(tmp_path, "trainval", "a\nv\n")
    assert splits() == [["a"], ["v"]]  # trainval holds val
    add(tmp_path, "t", split="test")
    assert splits() == [["a", "v"], ["t"]]
    (tmp_path / "ImageSets/Main/trainval.txt").unlink()
    assert splits() == [["a"], ["t"]]
    assert "has no split 'tset': did you mean 'test'?" in refusal(tmp_path, test=["tset"])
    (tmp_path / "ImageSets/x.txt").write_text("v")
    assert "has no split '../x'" in refusal(tmp_path, test=["../x"])


@pytest.mark.parametrize("line", ["a", "a\r", "a  1", "a -1", " a ", "a\t0\r"])
def test_second_column_of_a_list_is_not_part_of_the_name(line: str, tmp_path: Path) -> None:
    make(tmp_path)
    write_list(tmp_path, "cell_train", f"{line}\n\n")
    dataset = read_dataset(tmp_path, "voc", pool=["cell_train"], test=["val"])
    assert [image.image_id for image in dataset.pool] == ["JPEGImages/a.jpg"]


def test_classes_are_sorted_names_or_the_lines_of_a_file(tmp_path: Path) -> None:
    make(tmp_path, box("zebra"), box("Ant"))
    assert read_dataset(tmp_path, "voc").class_names == ("Ant", "platelet", "zebra")
    (tmp_path / "classes.txt").write_text("zebra\r\nplatelet\n\nAnt\nunseen\n")
    dataset = read_dataset(tmp_path, "voc")
    assert dataset.class_names == ("zebra", "platelet", "Ant", "unseen")
    assert dataset.truth["JPEGImages/a.jpg"].class_ids.tolist() == [0, 2]
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "labels.txt").write_text("zebra\nplatelets\nAnt")
    assert "object 1 'platelet': its class is not in the list of classes: did you mean 'platelets'?" in refusal(
        tmp_path
    )
    (tmp_path / "labels.txt").write_text("zebra\nzebra")
    assert "labels.txt: names a class twice" in refusal(tmp_path)


@pytest.mark.parametrize("stem", ["a b", "a,b", 'it\'s "x"', "海", "-rf", "x 1", "two.dots", "\u2028line"])
def test_names_of_every_kind_round_trip(stem: str, tmp_path: Path) -> None:
    make(tmp_path)
    add(tmp_path, stem, box("platelet"))
    dataset = read_dataset(tmp_path, "voc")
    assert dataset.truth[f"JPEGImages/{stem}.jpg"].class_ids.tolist() == [1]


def test_images_that_differ_in_their_ending_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    write_image(tmp_path / "JPEGImages/a.png")
    assert "train.txt:1: 'a': names 'a.jpg' and 'a.png', which would share one xml file" in refusal(tmp_path)


BAD = [
    (box(xmin=30), "zero area"),
    (box(xmin=31), "zero area"),
    (box(ymin=15), "zero area"),
    (box(xmin="x"), "xmin is 'x', not a number"),
    (box(xmin="1_0"), "xmin is '1_0', not a number"),
    (box(xmin=""), "has no xmin"),
    (box(xmax="nan"), "xmax is nan"),
    (box(ymax="inf"), "ymax is inf"),
    (box(ymax="1e300"), "far outside"),
    (box(name=" "), "has no name"),
    ("<object><name>cell</name></object>", "has no xmin"),
    (box(xmax=99), "pixels out"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_object_is_refused_with_its_line(bad: str, message: str, tmp_path: Path) -> None:
    make(tmp_path, box(), bad)
    text = refusal(tmp_path)
    assert f"{tmp_path / 'Annotations/a.xml'}:3: object 2" in text
    assert message in text


def test_dropping_bad_boxes_notes_each(tmp_path: Path) -> None:
    make(tmp_path, box(), *(bad for bad, _ in BAD))
    dataset = read_dataset(tmp_path, "voc", bad_boxes="drop")
    assert dataset.truth["JPEGImages/a.jpg"].boxes.tolist() == [[10, 5, 30, 15]]
    assert len(dataset.notes) == len(BAD) == len(examine_dataset(tmp_path, "voc")[1])


def test_missing_annotation_follows_its_policy(tmp_path: Path) -> None:
    add(make(tmp_path), "b")
    (tmp_path / "Annotations/b.xml").unlink()
    assert f"b.jpg: has no label file {tmp_path / 'Annotations/b.xml'}" in refusal(tmp_path)
    assert len(read_dataset(tmp_path, "voc", missing_labels="background").pool) == 2
    skipped = read_dataset(tmp_path, "voc", missing_labels="skip")
    assert len(skipped.pool) == 1
    assert skipped.notes == ("1 pool images without a label file left out, the first 'JPEGImages/b.jpg'",)


def test_size_that_differs_from_the_image_is_noted_and_not_trusted(tmp_path: Path) -> None:
    for width, height, num_notes in ((40, 20, 0), (0, 0, 0), ("x", 20, 0), (20, 40, 1)):
        root = make(
            tmp_path / f"{width}x{height}", f"<size><width>{width}</width><height>{height}</height></size>", box()
        )
        dataset = read_dataset(root, "voc")
        assert (dataset.pool[0].width, dataset.pool[0].height) == (40, 20)
        assert len(dataset.notes) == num_notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "a.xml:1: not valid XML"),
        ("<annotation>\n<object>\n</annotation>", "a.xml:3: not valid XML"),
        ("<html></html>", "its root is <html>, not <annotation>"),
        (b"<annotation>\xff</annotation>", "not valid XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><annotation/>', "not valid XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "not valid XML"),
        ('<!DOCTYPE annotation [<!ENTITY a "aa">]><annotation>&a;</annotation>', "declares a document type"),
        ('<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>', "declares a document type"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
            "declares a document type",
        ),
    ],
)
def test_bad_xml_is_refused_under_every_policy(text: str | bytes, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    write_xml(tmp_path, "a", text)
    text = refusal(tmp_path, bad_boxes="drop", missing_labels="skip")
    assert str(tmp_path / "Annotations/a.xml") in text
    assert message in text


def test_line_is_not_named_where_it_is_not_known(tmp_path: Path) -> None:
    make(tmp_path, "<!-- <object> -->", box(xmin=30))
    assert "Annotations/a.xml: object 1 'cell'" in refusal(tmp_path)


def test_listed_image_that_is_missing_is_refused_with_its_line(tmp_path: Path) -> None:
    make(tmp_path)
    write_list(tmp_path, "train", "gone\n../JPEGImages/a\n")
    assert [(problem.line, problem.what.split(":")[0]) for problem in examine_dataset(tmp_path, "voc")[1]] == [
        (2, "'gone'"),
        (3, "'../JPEGImages/a'"),
    ]


def test_folder_that_is_no_voc_data_set_is_refused(tmp_path: Path) -> None:
    assert "no JPEGImages" in refusal(tmp_path)


@pytest.mark.parametrize("path", ["JPEGImages/a.jpg", "Annotations/a.xml", "ImageSets/Main/train.txt", "Annotations"])
def test_links_that_lead_out_are_not_followed(path: str, tmp_path: Path) -> None:
    outside, inside = make(tmp_path / "outside"), make(tmp_path / "inside")
    (inside / path).rename(tmp_path / "aside")
    (inside / path).symlink_to(outside / path)
    assert f"lies outside of {inside}" in refusal(inside, missing_labels="skip")
    assert len(read_dataset(inside, "voc", root=tmp_path).pool) == 1


@pytest.fixture(scope="module")
def random_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("random"))


pieces = st.sampled_from(
    [
        *(
            "<annotation>",
            "</annotation>",
            "<object>",
            "</object>",
            "<name>",
            "</name>",
            "<bndbox>",
            "<xmin>",
            "x",
            "1",
        ),
        *("&lt;", "&#0;", "&a;", "<!DOCTYPE a>", "<?xml?>", "<size/>", "<polygon/>", "\0"),
        *(box(), box(xmin="nan"), box("<b/>")),
    ]
)


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(pieces, max_size=12).map(lambda parts: "".join(parts).encode()),
        st.lists(pieces, max_size=8).map(lambda parts: f"<annotation>{''.join(parts)}</annotation>".encode("utf-16")),
        st.text(max_size=8).map(
            lambda text: f"<annotation>{box(text)}{box(xmin=text)}</annotation>".encode("utf-8", "replace")
        ),
    )
)
def test_random_xml_raises_only_dataset_errors(random_set: Path, content: bytes) -> None:
    write_xml(random_set, "a", content)
    if examine_dataset(random_set, "voc")[1]:
        refusal(random_set)
    else:
        read_dataset(random_set, "voc")


@settings(max_examples=15, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))))
def test_random_lists_raise_only_dataset_errors(random_set: Path, content: bytes) -> None:
    (random_set / "ImageSets/Main/random.txt").write_bytes(content)
    write_xml(random_set, "a", f"<annotation>{box()}</annotation>")
    found = examine_dataset(random_set, "voc", pool=["random"], test=["val"])[1]
    if found:
        assert all("\n" not in str(problem) for problem in found)
        refusal(random_set, pool=["random"], test=["val"])
