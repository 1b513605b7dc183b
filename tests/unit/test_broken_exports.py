"""Exports that people spoil on the way: each is refused with its cause in plain words, or read; never other labels."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from raylearn.data.formats import read_dataset
from raylearn.errors import LabelsError
from raylearn.handoff.exchange import Record
from raylearn.handoff.labels import import_labels
from tests.unit import test_formats_coco, test_formats_voc, test_formats_yolo
from tests.unit.test_handoff import export, exported_by, ledger, pool, query

__all__ = ["ledger", "pool", "query"]


@pytest.fixture
def handout(request: pytest.FixtureRequest, ledger, query, tmp_path) -> Path:
    """What one tool sends back, as it should be."""
    folder = export(ledger, query, request.param, tmp_path / "handout")
    exported_by(request.param, folder)
    return folder


def refused(handout: Path, tool: str, path: Path | None = None) -> str:
    with pytest.raises(LabelsError) as caught:
        import_labels(path or handout, tool, Record.read(handout))  # type: ignore[arg-type]
    return str(caught.value)


def of(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("handout", [tool], indirect=True)


def edit_coco(handout: Path, edit: Callable[[dict], object]) -> None:
    path = handout / "annotations/instances_default.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# Numbers


@of("coco")
def test_fractions_in_a_coco_import_are_refused(handout):
    edit_coco(handout, lambda content: [one.update(bbox=[0.1, 0.2, 0.3, 0.4]) for one in content["annotations"]])
    assert "within the first pixel: coordinates are to be pixels here, not fractions" in refused(handout, "coco")


@of("csv")
def test_fractions_in_a_csv_import_are_refused(handout):
    names = [image.name for image in Record.read(handout).images]
    rows = [f'"{name}",crab,0.1,0.2,0.4,0.6\n' for name in names]
    (handout / "boxes.csv").write_text("name,class,x1,y1,x2,y2\n" + "".join(rows))
    assert "within the first pixel" in refused(handout, "csv")


@of("cvat")
def test_fractions_in_a_cvat_import_are_refused(handout):
    path = handout / "annotations.xml"
    text = re.sub(r'(xtl|ytl)="[^"]+"', r'\1="0.1"', path.read_text())
    path.write_text(re.sub(r'(xbr|ybr)="[^"]+"', r'\1="0.5"', text))
    assert "within the first pixel" in refused(handout, "cvat")


def test_fractions_in_a_data_set_in_pixels_are_refused(tmp_path):
    box = test_formats_voc.box("cell", 0.1, 0.2, 0.3, 0.4)
    test_formats_voc.add(tmp_path / "voc", "a", box)
    test_formats_voc.add(tmp_path / "voc", "v", box, split="val")
    assert "all boxes lie within the first pixel" in test_formats_voc.refusal(tmp_path / "voc")
    test_formats_coco.make(tmp_path / "coco")
    for file in (tmp_path / "coco").rglob("*.json"):
        content = json.loads(file.read_text())
        for one in content["annotations"]:
            one["bbox"] = [0.1, 0.2, 0.3, 0.4]
        file.write_text(json.dumps(content))
    assert "within the first pixel" in test_formats_coco.refusal(tmp_path / "coco")


def test_boxes_of_a_whole_pixel_in_the_first_corner_are_boxes(tmp_path):
    test_formats_voc.add(tmp_path, "a", test_formats_voc.box("cell", 1, 1, 1.5, 2))
    test_formats_voc.add(tmp_path, "v", test_formats_voc.box("cell", 1, 1, 5, 5), split="val")
    assert len(read_dataset(tmp_path, "voc").truth["JPEGImages/a.jpg"]) == 1


@of("yolo")
@pytest.mark.parametrize("row", ["0 0.5 0.5 0.2 0.1_5", "0_0 0.5 0.5 0.2 0.2"])
def test_a_number_that_only_python_reads_is_refused(handout, row):
    next((handout / "labels").glob("*.txt")).write_text(row)
    assert "is no number" in refused(handout, "yolo")


@of("coco")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bbox": [True, 2, 3, 4]}, "annotation 1: True is no number"),
        ({"bbox": [1, 2, 3, 4, 5]}, r"annotation 1: bbox \[1, 2, 3, 4, 5\] is not a list of x, y, width and height"),
        ({"bbox": None}, "annotation 1: bbox None is not a list of x, y, width and height"),
        ({"category_id": 0}, "annotation 1: category_id 0 is not listed in the file"),
        ({"image_id": "1"}, "annotation 1: image_id '1' is not listed in the file"),
        ({"image_id": [1]}, r"annotation 1: image_id \[1\] is not listed in the file"),
    ],
)
def test_an_annotation_of_coco_that_is_no_box_is_told_why(handout, change, said):
    edit_coco(handout, lambda content: content["annotations"][0].update(change))
    assert re.search(said, refused(handout, "coco"))


# Files


@of("csv")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.encode("utf-16"), "not valid UTF-8 at byte 0: save it as UTF-8"),
        (lambda text: text.replace(",", ";").encode(), "has no column name, only rank;name;.* are separated by ';'"),
        (lambda text: text.replace("name", "Name").encode(), "has no column name, only rank, Name, image_id"),
    ],
)
def test_a_table_that_a_spreadsheet_saved_otherwise_is_told_what_to_do(handout, change, said):
    path = handout / "boxes.csv"
    path.write_bytes(change(path.read_text()))
    assert re.search(said, refused(handout, "csv"))


@of("coco")
def test_json_that_is_not_utf8_or_no_object_is_told_so(handout):
    path = handout / "annotations/instances_default.json"
    path.write_bytes(path.read_text().encode("utf-16"))
    assert "is no JSON: not valid UTF-8 at byte 0: save it as UTF-8" in refused(handout, "coco")
    path.write_text("[]")
    assert "is no COCO file: images, annotations and categories are to be keys" in refused(handout, "coco")


@of("yolo")
def test_label_files_with_another_ending_in_capitals_are_read(handout):
    record = Record.read(handout)
    before = import_labels(handout, "yolo", record).truth
    for file in list((handout / "labels").glob("*.txt")):
        file.rename(file.with_suffix(".TXT"))
    assert import_labels(handout, "yolo", record, "background").truth == before


def test_a_label_file_of_a_data_set_with_its_ending_in_capitals_is_read(tmp_path):
    test_formats_yolo.make(tmp_path, train={"a": "0 0.5 0.5 0.5 0.5\n"})
    (tmp_path / "labels/train/a.txt").rename(tmp_path / "labels/train/a.TXT")
    assert len(read_dataset(tmp_path, "yolo", missing_labels="background").truth["images/train/a.png"]) == 1


@of("yolo")
def test_a_broken_link_is_no_label_file_unless_it_has_the_name_of_one(handout):
    labels = handout / "labels"
    (labels / "other.txt").symlink_to("nowhere")
    import_labels(handout, "yolo", Record.read(handout))
    own = next(file for file in labels.glob("*.txt") if file.is_file())
    own.unlink()
    own.symlink_to("nowhere")
    assert "cannot be read (No such file or directory)" in refused(handout, "yolo")


@of("yolo")
@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ([], "holds no labels: export again"),
        (["a.jpg"], "holds no labels: export again"),
        (["a/annotations.ZIP"], "holds only another zip file, 'a/annotations.ZIP': unpack it, and give that"),
    ],
)
def test_a_zip_file_without_labels_is_told_what_it_holds(handout, inside, said, tmp_path):
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in inside:
            archive.writestr(name, "x")
    assert f"{path} {said}" in refused(handout, "yolo", path)


@of("label-studio")
def test_another_form_or_project_of_label_studios_is_told_so(handout):
    path = handout / "export.json"
    tasks = json.loads(path.read_text())
    path.write_text(json.dumps([*tasks, {"data": {"image": "/x/other.jpg"}, "annotations": []}]))
    assert f"task {len(tasks)} is not of Label Studio's JSON export: no 'name': is it of another project?" in refused(
        handout, "label-studio"
    )
    path.write_text(json.dumps([{"id": 1, "image": "/x/a.jpg", "label": []}]))
    assert "is of the form JSON-MIN, which says too little: export as JSON" in refused(handout, "label-studio")


@of("cvat")
def test_an_entity_in_cvats_xml_is_refused(handout):
    path = handout / "annotations.xml"
    text = path.read_text()
    path.write_text(text.replace("<annotations>", '<!DOCTYPE x [<!ENTITY a "b">]><annotations>', 1))
    assert "declares an entity, which CVAT never does" in refused(handout, "cvat")


def test_a_table_of_groups_that_a_spreadsheet_saved_otherwise_is_told_what_to_do(tmp_path):
    test_formats_yolo.make(tmp_path)
    table = tmp_path / "groups.csv"
    table.write_bytes("image,group\na,b\n".encode("utf-16"))
    assert f"{table}: cannot be read: not valid UTF-8 at byte 0" in test_formats_yolo.refusal(tmp_path)
    table.write_text("image;group\na;b\n")
    assert "got image;group, which are separated by ';': save it with commas" in test_formats_yolo.refusal(tmp_path)


def test_backslashes_in_double_quotes_of_yaml_are_told_what_to_do(tmp_path):
    test_formats_yolo.make(tmp_path, 'path: "C:\\Users\\me"\ntrain: images/train\nval: images/val\nnames: [a]\n')
    assert ": write \\ in single quotes, or /" in test_formats_yolo.refusal(tmp_path)
