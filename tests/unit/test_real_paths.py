"""Paths of other machines and tools, text files that are no labels, and zipped exports."""

import io
import json
import os
import stat
import zipfile
from pathlib import Path

import pytest
import yaml

from raylearn.data.formats import read_dataset
from raylearn.errors import DatasetError, LabelsError
from raylearn.handoff import zipped
from raylearn.handoff.exchange import Record
from raylearn.handoff.labels import import_labels
from tests.unit import test_formats_coco, test_formats_voc, test_formats_yolo
from tests.unit.test_formats_yolo import CLASSES, ids
from tests.unit.test_handoff import IDS, TOOLS, export, exported_by, ledger, pool, query

__all__ = ["ledger", "pool", "query"]

READ = ["images/train/a.png", "images/val/v.png"]

# YOLO data sets


@pytest.mark.parametrize(
    "line",
    [
        "images\\train\\a.png",
        ".\\images\\train\\a.png",
        "data/images/train/a.png",
        "data\\images\\train\\a.png",
        "./data/images/train/a.png",
        "/content/set/images/train/a.png",
        "C:\\Users\\me\\set\\images\\train\\a.png",
        "D:/set/images/train/a.png",
        "\\\\server\\share\\set\\images\\train\\a.png",
    ],
)
def test_a_listed_path_is_read_where_one_reading_is_possible_with_a_note(line: str, tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, {"train": "train.txt", "val": "images/val", "names": CLASSES})
    (tmp_path / "train.txt").write_text(f"\ufeff{line}\r\n", newline="")
    dataset = read_dataset(tmp_path, "yolo")
    assert ids(dataset) == READ
    assert len(dataset.truth["images/train/a.png"]) == 1
    assert "train.txt: 1 path leads nowhere as written, read otherwise: " in dataset.notes[0]


@pytest.mark.parametrize(
    "entry",
    ["images\\train", "..\\images\\train", "data/images/train", "/content/set/images/train", "C:\\s\\images\\train"],
)
def test_a_split_is_read_where_one_reading_is_possible_with_a_note(entry: str, tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, {"train": entry, "val": "images/val", "names": CLASSES})
    dataset = read_dataset(tmp_path, "yolo")
    assert ids(dataset) == READ
    assert f"is read as {tmp_path / 'images/train'}" in dataset.notes[0]


@pytest.mark.parametrize("path", ["/content/set", "C:\\Users\\me\\set", "../datasets/set", "datasets/set", "..\\set"])
def test_a_path_of_another_machine_gives_way_to_the_files_own_folder_with_a_note(path: str, tmp_path: Path) -> None:
    description = {"path": path, "train": "images/train", "val": "images/val", "names": CLASSES}
    test_formats_yolo.make(tmp_path, description)
    dataset = read_dataset(tmp_path, "yolo")
    assert ids(dataset) == READ
    assert f"is not of this machine, {tmp_path} is taken" in dataset.notes[0]


def test_the_end_of_a_path_of_another_machine_is_taken_where_the_images_are(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path / "set")
    description = {"path": "/home/other/set", "train": "images/train", "val": "images/val", "names": CLASSES}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(description))
    assert ids(read_dataset(tmp_path / "my.yaml", "yolo")) == [f"set/{name}" for name in READ]


def test_two_readings_are_refused_with_both(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, {"train": "train.txt", "val": "images/val", "names": CLASSES})
    test_formats_yolo.write_image(tmp_path / "train/a.png")
    (tmp_path / "train.txt").write_text("/content/images/train/a.png")
    said = test_formats_yolo.refusal(tmp_path)
    assert f"can mean {tmp_path / 'images/train/a.png'} and {tmp_path / 'train/a.png'}" in said
    test_formats_yolo.make(tmp_path / "set")
    test_formats_yolo.make(
        tmp_path / "set/s", {"path": "/x/s", "train": "images/train", "val": "images/val", "names": CLASSES}
    )
    (tmp_path / "set/my.yaml").write_text((tmp_path / "set/s/data.yaml").read_text())
    with pytest.raises(DatasetError, match=r"my.yaml: path: '/x/s' can mean .*/set and .*/set/s: write which one"):
        read_dataset(tmp_path / "set/my.yaml", "yolo")


@pytest.mark.parametrize("line", ["images/train/gone.png", "other\\gone.png", "/content/gone.png", "data/gone.png"])
def test_a_listed_image_that_is_not_there_is_refused_with_the_place(line: str, tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, {"train": "train.txt", "val": "images/val", "names": CLASSES})
    (tmp_path / "train.txt").write_text(line)
    said = test_formats_yolo.refusal(tmp_path)
    assert "train.txt:1: " in said
    assert "looked for /" in said or f"lies outside of {tmp_path}" in said


@pytest.mark.parametrize("entry", ["images/nowhere", "C:\\nowhere"])
def test_a_split_that_is_not_there_is_refused_with_the_place(entry: str, tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, {"train": entry, "val": "images/val", "names": CLASSES})
    assert f"is no folder and no file: looked for {tmp_path / entry}" in test_formats_yolo.refusal(tmp_path)


def test_an_image_that_is_there_but_outside_is_not_exchanged_for_one_inside(tmp_path: Path) -> None:
    outside = test_formats_yolo.write_image(tmp_path / "other/images/train/a.png")
    test_formats_yolo.make(tmp_path / "set", {"train": "train.txt", "val": "images/val", "names": CLASSES})
    (tmp_path / "set/train.txt").write_text(str(outside))
    assert f"lies outside of {tmp_path / 'set'}" in test_formats_yolo.refusal(tmp_path / "set")


@pytest.mark.parametrize("form", ["yolo", "coco", "voc"])
def test_a_zipped_data_set_is_refused_with_what_to_do(form: str, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"set.zip: is a zip file: unpack it"):
        read_dataset(tmp_path / "set.zip", form)


# COCO and VOC data sets


@pytest.mark.parametrize("name", ["sub\\a.jpg", "data/sub/a.jpg", "/home/other/set/sub/a.jpg", "E:\\set\\sub\\a.jpg"])
def test_a_file_name_of_another_machine_is_read_with_a_note(name: str, tmp_path: Path) -> None:
    test_formats_coco.make(tmp_path)
    os.renames(tmp_path / "train/a.jpg", tmp_path / "train/sub/a.jpg")
    file = tmp_path / "train/_annotations.coco.json"
    test_formats_coco.write_json(file, name, test_formats_coco.BOX)
    dataset = read_dataset(tmp_path, "coco")
    assert [image.image_id for image in dataset.pool] == ["train/sub/a.jpg"]
    assert "1 path leads nowhere as written, read otherwise: " in dataset.notes[0]


@pytest.mark.parametrize("name", ["..\\valid\\v.jpg", "../valid/v.jpg", "gone\\x.jpg", "/etc/hostname.jpg"])
def test_a_file_name_that_leads_out_or_nowhere_is_refused(name: str, tmp_path: Path) -> None:
    test_formats_coco.make(tmp_path)
    test_formats_coco.write_json(tmp_path / "train/_annotations.coco.json", name, test_formats_coco.BOX)
    said = test_formats_coco.refusal(tmp_path)
    assert "image 1: " in said
    assert "leads out of the data set" in said or f"looked in {tmp_path / 'train'}" in said


@pytest.mark.parametrize(
    "line",
    [
        *("a", "a.jpg", "a.JPG", "  a.jpg \r", "JPEGImages/a.jpg", "./JPEGImages/a.jpg", "JPEGImages\\a.jpg"),
        *("a  1", "a -1", "a.jpg 1", "a.jpg\t-1", "/home/me/VOC2007/JPEGImages/a.jpg", "VOC\\JPEGImages\\a"),
        *("JPEGImages/a.jpg Annotations/a.xml", "./JPEGImages/a.jpg ./Annotations/a.xml"),
    ],
)
def test_a_line_of_a_voc_list_may_have_ending_folder_and_column(line: str, tmp_path: Path) -> None:
    test_formats_voc.make(tmp_path)
    (tmp_path / "ImageSets/Main/train.txt").write_text(f"\ufeff{line}\n", newline="")
    assert [image.image_id for image in read_dataset(tmp_path, "voc").pool] == ["JPEGImages/a.jpg"]


@pytest.mark.parametrize("line", ["a.png", "gone.jpg", "other/a.jpg", "a.jpg 2"])
def test_a_line_of_a_voc_list_that_names_no_image_is_refused_with_the_place(line: str, tmp_path: Path) -> None:
    test_formats_voc.make(tmp_path)
    (tmp_path / "ImageSets/Main/train.txt").write_text(line)
    said = test_formats_voc.refusal(tmp_path)
    assert "train.txt:1: " in said
    assert f"looked in {tmp_path / 'JPEGImages'}" in said


# Imports


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "yolo"])
@pytest.mark.parametrize("before", ["default\\", "data/obj_train_data/", "C:\\x\\", "0123abcd-", "images\\0123abcd-"])
def test_a_name_with_the_path_that_a_tool_puts_before_it_is_read(tool, before, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    path, record = exported_by(tool, handout), Record.read(handout)
    text = path.read_text()
    for image in record.images:
        text = text.replace(image.name, (json.dumps(before)[1:-1] if path.suffix == ".json" else before) + image.name)
    path.write_text(text)
    assert set(import_labels(path, tool, record).truth) == set(IDS)


def test_label_files_with_label_studios_prefix_are_read(ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    for file in sorted((handout / "labels").iterdir()):
        file.rename(file.with_name(f"0123abcd-{file.name}"))
    assert set(import_labels(handout, "yolo", Record.read(handout)).truth) == set(IDS)


FOREIGN = {
    "README.roboflow.txt": "blood - v1\n=====\nThis dataset was exported via roboflow.com on June 5, 2024 at 9:12\n",
    "README.dataset.txt": "This dataset was exported\n",
    "requirements.txt": "numpy==1.26\ntorch>=2.0\n",
    "labels/notes.txt": "3 images are blurred\nask Ann",
    "train/train.txt": "data/obj_train_data/1_a.jpg\n",
    "Validation.txt": "./images/1_a.jpg\n",
    "latin.txt": "caf\u00e9",
    "empty.txt": "",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_text_file_without_boxes_of_no_image_is_no_label_file(name, ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    (handout / name).parent.mkdir(exist_ok=True)
    (handout / name).write_bytes(FOREIGN[name].encode("latin-1"))
    assert set(import_labels(handout, "yolo", Record.read(handout)).truth) == set(IDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2\n", "other.txt:2: 4 columns, but a box has 5"),
        ("0 0.5 0.5 0.2 0.2\n", "other was not asked for"),
        ("", "other was not asked for"),
    ],
)
def test_a_label_file_of_no_image_is_an_error(text, message, ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    (handout / "labels/other.txt").write_text(text)
    with pytest.raises(LabelsError) as caught:
        import_labels(handout, "yolo", Record.read(handout))
    assert any(message in problem for problem in caught.value.problems)


@pytest.mark.parametrize("text", ["This dataset was exported\n", "0 0.5 0.5 0.2\n"])
def test_a_bad_row_in_the_label_file_of_an_image_is_an_error_with_its_line(text, ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    file = min((handout / "labels").iterdir())
    file.write_text(text)
    with pytest.raises(LabelsError, match=f"{file}:1: 4 columns"):
        import_labels(handout, "yolo", Record.read(handout))


def test_a_place_that_is_not_there_is_not_its_parent(ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    with pytest.raises(LabelsError, match="exprot is not there"):
        import_labels(handout / "exprot", "yolo", Record.read(handout))


# Zipped exports


def zip_of(path: Path, target: Path, layout: dict[str, str] | None = None) -> Path:
    """A zip of a folder or file; `layout` gives members other names."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            name = str(file.relative_to(path)) if path.is_dir() else file.name
            for old, new in (layout or {}).items():
                name = name.replace(old, new)
            archive.write(file, name)
        archive.writestr("__MACOSX/._annotations.xml", b"\0")
        archive.writestr("README.dataset.txt", "This dataset was exported")
    return target


LAYOUTS = {
    "label-studio": [{}, {"export.json": "project-1-at-2024.json"}],
    "cvat": [{}, {"annotations.xml": "export/annotations.xml"}, {"annotations.xml": "task 1.xml"}],
    "coco": [
        {},
        {"instances_default.json": "result.json"},
        {"instances_default.json": "train/_annotations.coco.json"},
        {"instances_default.json": "a\\result.json"},
    ],
    "yolo": [
        {},
        {"labels/": "train/labels/"},
        {"labels/": "obj_train_data/"},
        {"data.yaml": "ds/data.yaml", "labels/": "ds/labels/train/"},
        {"labels/": "labels\\"},
    ],
    "csv": [{}, {"boxes.csv": "my boxes.csv"}],
}


@pytest.mark.parametrize(("tool", "layout"), [(tool, layout) for tool in TOOLS for layout in LAYOUTS[tool]])
def test_a_zipped_export_is_read_as_it_is(tool, layout, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    path, record = exported_by(tool, handout), Record.read(handout)
    found = import_labels(path, tool, record)
    archive = zip_of(path, tmp_path / "export.ZIP", layout)
    assert import_labels(archive, tool, record).truth == found.truth


@pytest.mark.parametrize("tool", TOOLS)
def test_a_fault_in_a_zipped_export_is_named_by_its_place_in_it(tool, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    other = export(ledger, query[:1], tool, tmp_path / "other")
    path = exported_by(tool, handout)
    archive = zip_of(path, tmp_path / "export.zip")
    with pytest.raises(LabelsError) as caught:
        import_labels(archive, tool, Record.read(other))
    assert all(problem.startswith(str(archive)) for problem in caught.value.problems)
    assert "raylearn-export-" not in str(caught.value)


def test_several_splits_of_roboflows_are_read_together(ledger, query, tmp_path):
    handout = export(ledger, query, "coco", tmp_path / "handout")
    record = Record.read(handout)
    content = json.loads(exported_by("coco", handout).read_text())
    whole = import_labels(handout, "coco", record).truth
    archive = tmp_path / "roboflow.zip"
    for images in (content["images"][:2], content["images"][2:], content["images"][1:2]):
        ids_of = {image["id"] for image in images}
        own = [annotation for annotation in content["annotations"] if annotation["image_id"] in ids_of]
        with zipfile.ZipFile(archive, "a") as file:
            name = f"split{len(file.namelist())}/_annotations.coco.json"
            file.writestr(name, json.dumps(content | {"images": images, "annotations": own}))
        if len(images) == 3:
            assert import_labels(archive, "coco", record).truth == whole
    with pytest.raises(LabelsError, match="is listed in another file too"):
        import_labels(archive, "coco", record)


HOSTILE = ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt", "C:/out.txt"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_member_that_leads_out_is_refused_and_nothing_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t" / "u"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "t/u").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("classes.txt", "crab")
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(LabelsError, match="which leads out of it: nothing was unpacked"):
        import_labels(tmp_path / "x.zip", "yolo", Record(("crab",), ()))
    assert {path.name for path in tmp_path.rglob("*")} == {"t", "u", "x.zip"}


def _link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("a.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def _twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("a.txt", "1")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.txt", "2")


@pytest.mark.parametrize(("plant", "message"), [(_link, "holds a link"), (_twice, "holds 'a.txt' twice")])
def test_a_zip_file_with_links_or_repeated_names_is_refused(plant, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        plant(archive)
    with pytest.raises(LabelsError, match=message):
        import_labels(tmp_path / "x.zip", "yolo", Record(("crab",), ()))


def test_a_zip_file_that_grows_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(zipped, "MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.jpg", b"\0" * 5000)  # is not unpacked
        archive.writestr("a.txt", b" " * 600)
        archive.writestr("b.txt", b" " * 600)
    with pytest.raises(LabelsError, match="holds 1,200 bytes of labels, more than 1,000"):
        import_labels(tmp_path / "x.zip", "yolo", Record(("crab",), ()))


def test_a_broken_zip_file_is_refused(tmp_path):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("classes.txt", "crab\n" * 40)
    damaged = bytearray(whole.getvalue())
    damaged[60] ^= 1
    for content in (b"", b"text", whole.getvalue()[:-30], whole.getvalue()[:20], bytes(damaged)):
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(LabelsError, match="is no zip file that can be read"):
            import_labels(tmp_path / "x.zip", "yolo", Record(("crab",), ()))
