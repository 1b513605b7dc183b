"""What real data sets and exports hold: lists of classes that contradict each other, and names that YAML changes."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylearn.data.formats import read_dataset
from raylearn.errors import DatasetError, LabelsError, QueryError
from raylearn.handoff.exchange import Record, Tool
from raylearn.handoff.export import export_query
from raylearn.handoff.labels import import_labels
from tests.conftest import SHARED
from tests.unit import test_formats_coco, test_formats_voc, test_formats_yolo
from tests.unit.test_cli import call, refused
from tests.unit.test_handoff import CLASSES, IDS, TOOLS, export, exported_by, ledger, pool, query

__all__ = ["ledger", "pool", "query"]

CASES = SHARED / "cases"


def in_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (CASES / name).is_dir():
        pytest.skip(f"{CASES / name} is not there")
    monkeypatch.chdir(CASES / name)


def import_of_case(tmp_path: Path) -> tuple[str, ...]:
    return ("labels", "import", "export", "--format", "yolo", "--handout", "handout", "--out", str(tmp_path / "out"))


# The cases that were reported


@pytest.mark.parametrize("name", ["03-labelimg-classes-txt", "04-yolo-two-class-lists"])
def test_two_lists_that_disagree_are_refused_with_both(name, tmp_path, monkeypatch, capsys):
    in_case(name, monkeypatch)
    said = refused(capsys, *import_of_case(tmp_path))
    assert re.match(r"export/(labels/)?classes.txt: class 0 is '\w+', but in export/data.yaml it is 'fusilier'", said)
    assert not (tmp_path / "out").exists()


def checked(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = call("check", "e.yaml")
    return code, capsys.readouterr().out


def test_names_that_yaml_takes_for_booleans_are_refused(monkeypatch, capsys):
    in_case("07-yolo-names-boolean", monkeypatch)
    code, said = checked(capsys)
    assert code == 2
    assert 'names: class 0 is True: put it in quotes, "ON"' in said


def test_a_name_of_two_classes_is_refused_in_a_data_set_and_in_an_import(tmp_path, monkeypatch, capsys):
    in_case("09-yolo-duplicate-class", monkeypatch)
    code, said = checked(capsys)
    assert code == 2
    assert "data.yaml: names a class twice: classes 0 and 1 are 'a'" in said
    assert "export/data.yaml: names a class twice: classes 1 and 2" in refused(capsys, *import_of_case(tmp_path))


def test_roboflows_root_is_left_out_with_a_note(monkeypatch, capsys):
    in_case("11-coco-roboflow-root-same-name", monkeypatch)
    code, said = checked(capsys)
    assert code == 0
    assert "category 0 'mask' left out" in said
    assert "classes mask" in said


@pytest.mark.parametrize("name", ["14-cvat-ultralytics-yolo-list", "15-backslash-paths"])
def test_lists_of_other_tools_and_machines_are_read_with_a_note(name, monkeypatch, capsys):
    in_case(name, monkeypatch)
    code, said = checked(capsys)
    assert code == 0
    assert "4 images in the pool, 4 held out" in said
    assert "train.txt: 4 paths lead nowhere as written, read otherwise: " in said


def test_a_text_file_of_roboflows_is_no_label_file(tmp_path, monkeypatch, capsys):
    in_case("18-roboflow-readme-txt", monkeypatch)
    assert call(*import_of_case(tmp_path)) == 0
    assert "4 images with 4 boxes" in capsys.readouterr().out


# Names as they are spelled

CHANGED_BY_YAML = {
    "ON": "True",
    "off": "False",
    "NO": "False",
    "yes": "True",
    "true": "True",
    "010": "8",
    "12:30": "750",
    "0x1F": "31",
    "1_000": "1000",
    "+7": "7",
    "1.0": "1.0",
    "1.10": "1.1",
    ".5": "0.5",
    ".inf": "inf",
    "2020-01-01": "datetime.date(2020, 1, 1)",
    "null": "None",
    "~": "None",
}


@pytest.mark.parametrize("spelled", CHANGED_BY_YAML)
@pytest.mark.parametrize("form", ["[cell, {}]", "{{0: cell, 1: {}}}", "\n- cell\n- {}", "\n  0: cell\n  1: {}"])
def test_a_name_that_yaml_changes_is_refused_with_its_spelling(spelled: str, form: str, tmp_path: Path) -> None:
    names = form.format(spelled)
    test_formats_yolo.make(tmp_path, f"train: images/train\nval: images/val\nnames: {names}\n")
    said = test_formats_yolo.refusal(tmp_path)
    assert f'names: class 1 is {CHANGED_BY_YAML[spelled]}: put it in quotes, "{spelled}"' in said
    test_formats_yolo.make(tmp_path, f"train: images/train\nval: images/val\nnames: {form.format(repr(spelled))}\n")
    assert read_dataset(tmp_path, "yolo").class_names == ("cell", spelled)


def test_whole_numbers_are_names_as_they_are_spelled(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, "{train: images/train, val: images/val, names: [0, 10, 7]}")
    assert read_dataset(tmp_path, "yolo").class_names == ("0", "10", "7")


@pytest.mark.parametrize("line", ["names: [a, b]", "train: images/val", "path: ."])
def test_a_key_that_is_there_twice_is_refused(line: str, tmp_path: Path) -> None:
    text = "path: ''\ntrain: images/train\nval: images/val\nnames: [cell, platelet]\n"
    test_formats_yolo.make(tmp_path, text + line)
    assert f"data.yaml:5: {line.split(':')[0]}: is there twice" in test_formats_yolo.refusal(tmp_path)


def test_a_class_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, "{train: images/train, val: images/val, names: {0: a, 1: b, 1: c}}")
    assert "must number its 3 classes from 0 to 2" in test_formats_yolo.refusal(tmp_path)


# One name twice, in every format


def make_coco(root: Path, categories: list[dict[str, Any]], *annotations: dict[str, Any]) -> Path:
    """A data set of these categories in both splits."""
    test_formats_coco.make(root, *annotations)
    for split in ("train", "valid"):
        file = root / split / "_annotations.coco.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"categories": categories}))
    return root


@pytest.mark.parametrize("name", ["cell", " cell ", "ce\u0301l", "Cell"])
def test_one_name_of_two_classes_is_refused_in_every_data_set(name: str, tmp_path: Path) -> None:
    """Apart from spaces and the form of accents; capitals make another name."""
    first = "c\u00e9l" if "\u0301" in name else "cell"
    test_formats_yolo.make(tmp_path / "yolo", {"train": "images/train", "val": "images/val", "names": [first, name]})
    make_coco(tmp_path / "coco", [{"id": 1, "name": first}, {"id": 7, "name": name}])
    for path, form, message in (("yolo", "yolo", "names a class twice"), ("coco", "coco", "stands twice")):
        if name == "Cell":
            assert read_dataset(tmp_path / path, form).class_names == ("cell", "Cell")
            continue
        with pytest.raises(DatasetError, match=message):
            read_dataset(tmp_path / path, form)


def renamed_twice(tool: Tool, path: Path) -> None:
    """The second class of an export gets the name of the first."""
    if tool == "yolo":
        path = path / "data.yaml"
        path.write_text(yaml.safe_dump({"names": ["crab", "crab ", CLASSES[2]]}))
        return
    if tool == "label-studio":
        path = path.parent / "label_config.xml"
    text = path.read_text()
    escaped = text.replace(json.dumps(CLASSES[1])[1:-1] if tool == "coco" else CLASSES[1], "crab")
    assert escaped != text
    path.write_text(escaped)


@pytest.mark.parametrize("tool", ["yolo", "coco", "cvat", "label-studio"])
def test_one_name_of_two_classes_is_refused_in_every_import(tool, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    path = exported_by(tool, handout)
    renamed_twice(tool, path)
    with pytest.raises(LabelsError, match="names a class twice: classes 0 and 1 are 'crab"):
        import_labels(handout if tool == "label-studio" else path, tool, Record.read(handout))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_hand_off_by_a_name_of_two_classes_is_not_written_nor_read(tool, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    record = Record.read(handout)
    twice = Record(("crab", "crab", CLASSES[2]), record.images)
    with pytest.raises(LabelsError, match=r"handoff.json: names a class twice"):
        import_labels(exported_by(tool, handout), tool, twice)
    with pytest.raises(QueryError, match="two classes are called 'crab'"):
        export_query(query, {}, ("crab", "crab"), tool, tmp_path / "other")


# Lists that contradict each other

CONTRADICTIONS: Mapping[str, tuple[list[str], str]] = {
    "other order": (["platelet", "cell"], "class 0 is 'platelet', but in {} it is 'cell'"),
    "other name": (["cell", "leucocyte"], "class 1 is 'leucocyte', but in {} it is 'platelet'"),
    "fewer": (["cell"], "lists 1 classes, but {0} lists 2: class 1, 'platelet', is in {0} only"),
    "more": (["cell", "platelet", "x"], "lists 3 classes, but {0} lists 2: class 2, 'x', is in {1} only"),
}


def write_list(file: Path, names: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".yaml":
        text = yaml.safe_dump({"names": dict(enumerate(names))})
    elif file.suffix == ".json":
        text = json.dumps({"categories": [{"id": k, "name": name} for k, name in enumerate(names)], "info": {}})
    else:
        text = "\ufeff" + "".join(f"{name}\r\n" for name in names)
    file.write_text(text, newline="")


LIST_FILES = ["classes.txt", "labels/classes.txt", "labels/train/Classes.txt", "meta/obj.names", "images/my.names"]


@pytest.mark.parametrize("kind", CONTRADICTIONS)
@pytest.mark.parametrize("file", [*LIST_FILES, "labels.txt", "notes.json", "dataset.yaml", "_darknet.labels"])
def test_every_list_of_a_yolo_data_set_is_compared(kind: str, file: str, tmp_path: Path) -> None:
    names, message = CONTRADICTIONS[kind]
    test_formats_yolo.make(tmp_path)
    other, own = tmp_path / file, tmp_path / "data.yaml"
    write_list(other, names)
    with pytest.raises(DatasetError) as caught:
        read_dataset(own, "yolo")
    assert str(caught.value).startswith(f"{other}: {message.format(own, other)}")
    write_list(other, test_formats_yolo.CLASSES)
    assert read_dataset(own, "yolo").class_names == ("cell", "platelet")


def test_a_label_file_of_an_image_called_classes_lists_none(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path, train={"classes": "0 0.5 0.5 0.5 0.5\n"})
    assert len(read_dataset(tmp_path, "yolo").truth["images/train/classes.png"]) == 1


def test_a_list_of_another_data_set_beside_is_left_alone(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path / "one")
    description = {"train": "one/images/train", "val": "one/images/val", "names": test_formats_yolo.CLASSES}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(description))
    write_list(tmp_path / "two/classes.txt", ["x"])
    assert read_dataset(tmp_path / "one.yaml", "yolo").class_names == ("cell", "platelet")


@pytest.mark.parametrize("text", ["cell\n\nplatelet\n", "cell\ncell\n"])
def test_a_list_with_a_gap_or_a_repeated_name_is_refused(text: str, tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path)
    (tmp_path / "classes.txt").write_text(text)
    assert "classes.txt" in test_formats_yolo.refusal(tmp_path)


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_the_lists_of_a_coco_data_set_are_compared(kind: str, tmp_path: Path) -> None:
    names, message = CONTRADICTIONS[kind]
    test_formats_coco.make(tmp_path)
    train, valid = (tmp_path / split / "_annotations.coco.json" for split in ("train", "valid"))
    write_list(tmp_path / "classes.txt", names)
    said = test_formats_coco.refusal(tmp_path)
    assert said.startswith(f"{tmp_path / 'classes.txt'}: {message.format(train, tmp_path / 'classes.txt')}")
    (tmp_path / "classes.txt").unlink()
    content = json.loads(valid.read_text())
    valid.write_text(json.dumps(content | {"categories": [{"id": k, "name": n} for k, n in enumerate(names, 1)]}))
    assert test_formats_coco.refusal(tmp_path).startswith(f"{valid}: {message.format(train, valid)}")


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_the_lists_of_a_voc_data_set_are_compared(kind: str, tmp_path: Path) -> None:
    names, message = CONTRADICTIONS[kind]
    test_formats_voc.make(tmp_path)
    write_list(tmp_path / "labels.txt", ["cell", "platelet"])
    assert read_dataset(tmp_path, "voc").class_names == ("cell", "platelet")
    other = tmp_path / "Annotations/classes.txt"
    write_list(other, names)
    assert test_formats_voc.refusal(tmp_path).startswith(f"{other}: {message.format(tmp_path / 'labels.txt', other)}")


def test_darknets_count_of_classes_is_compared(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path)
    (tmp_path / "obj.data").write_text("classes = 3\ntrain = data/train.txt\n")
    assert f"obj.data: classes = 3, but {tmp_path / 'data.yaml'} lists 2" in test_formats_yolo.refusal(tmp_path)


def counted(root: Path) -> Path:
    """A data set whose data.yaml says how many classes there are, and not their names."""
    test_formats_yolo.make(root, "train: images/train\nval: images/val\nnc: 2\n")
    return root


def test_a_count_without_names_is_compared_with_every_list(tmp_path: Path) -> None:
    yolo = counted(tmp_path)
    assert read_dataset(yolo, "yolo").class_names == ("class_0", "class_1")
    write_list(yolo / "classes.txt", ["cell", "platelet"])
    assert read_dataset(yolo, "yolo").num_classes == 2
    write_list(yolo / "classes.txt", ["cell", "platelet", "x"])
    own, other = yolo / "data.yaml", yolo / "classes.txt"
    assert test_formats_yolo.refusal(yolo).startswith(f"{own}: nc: 2, but {other} lists 3: correct one of them")


def test_two_counts_without_names_are_compared(tmp_path: Path) -> None:
    (counted(tmp_path) / "obj.data").write_text("classes = 3\n")
    said = test_formats_yolo.refusal(tmp_path)
    assert f"obj.data: classes = 3, but {tmp_path / 'data.yaml'} has nc: 2" in said


def test_a_label_beyond_the_count_without_names_is_refused(tmp_path: Path) -> None:
    label = next((counted(tmp_path) / "labels/train").glob("*.txt"))
    label.write_text("2 0.5 0.5 0.5 0.5\n")
    assert f"{label}:1: class id '2' is not one of 0..1" in test_formats_yolo.refusal(tmp_path)


def test_a_count_without_names_is_compared_in_an_import(ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    exported_by("yolo", handout)
    (handout / "data.yaml").rename(handout / "mine.yaml")
    (handout / "data.yaml").write_text("nc: 2\n")
    with pytest.raises(LabelsError, match=r"data.yaml: nc: 2, but .*mine.yaml lists 3"):
        import_labels(handout, "yolo", Record.read(handout))


# CVAT's Pascal VOC


def of_cvat(root: Path, *names: str, background: bool = True) -> Path:
    """As CVAT exports a task of two images, one in a folder, both with a space in their names."""
    header = "# label:color_rgb:parts:actions\n" + "background:0,0,0::\n" * background
    root.mkdir(parents=True, exist_ok=True)
    (root / "labelmap.txt").write_text(header + "".join(f"{name}:1,2,3::\n" for name in names))
    for stem, class_name in (("day 1/a b", "cell"), ("c d", "platelet")):
        test_formats_voc.write_image(root / f"JPEGImages/{stem}.jpg")
        xml = root / f"Annotations/{stem}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text(f"<annotation>{test_formats_voc.box(class_name, 0.0, 5.5, 10.25, 20.0)}</annotation>")
    test_formats_voc.write_list(root, "default", '"day 1/a b"\n')
    test_formats_voc.write_list(root, "other", '"c d"  1\n')
    return root


CVATS_SPLITS = {"pool": ["default"], "test": ["other"]}


@pytest.mark.parametrize("background", [True, False])
def test_cvats_voc_is_read_with_its_labelmap_folders_and_corners(background: bool, tmp_path: Path) -> None:
    dataset = read_dataset(of_cvat(tmp_path, "platelet", "cell", background=background), "voc", **CVATS_SPLITS)
    assert dataset.class_names == ("platelet", "cell")
    truth = dataset.truth["JPEGImages/day 1/a b.jpg"]
    assert truth.boxes.tolist() == [[0, 5.5, 10.25, 20]]
    assert truth.class_ids.tolist() == [1]
    assert "corners are taken to begin at 0" in dataset.notes[0]


def test_a_background_that_is_drawn_is_a_class_of_a_labelmap(tmp_path: Path) -> None:
    of_cvat(tmp_path, "platelet", "cell")
    file = tmp_path / "Annotations/c d.xml"
    file.write_text(file.read_text().replace("platelet", "background"))
    assert read_dataset(tmp_path, "voc", **CVATS_SPLITS).class_names == ("background", "platelet", "cell")


def test_cvats_list_of_images_is_named_where_no_split_is(tmp_path: Path) -> None:
    assert "has no split 'train': known: default, other" in test_formats_voc.refusal(of_cvat(tmp_path, "cell"))


def test_a_class_that_a_labelmap_lacks_is_refused(tmp_path: Path) -> None:
    said = test_formats_voc.refusal(of_cvat(tmp_path, "cell"), **CVATS_SPLITS)
    assert "object 1 'platelet': its class is not in the list of classes" in said


@pytest.mark.parametrize("kind", CONTRADICTIONS)
@pytest.mark.parametrize("background", ["", "background:0,0,0::\n"])
def test_a_labelmap_is_compared_in_every_data_set(background: str, kind: str, tmp_path: Path) -> None:
    names, message = CONTRADICTIONS[kind]
    test_formats_yolo.make(tmp_path / "yolo")
    test_formats_coco.make(tmp_path / "coco")
    write_list(test_formats_voc.make(tmp_path / "voc") / "labels.txt", ["cell", "platelet"])
    own = {"yolo": "data.yaml", "coco": "train/_annotations.coco.json", "voc": "labels.txt"}
    for form, file in own.items():
        other = tmp_path / form / "labelmap.txt"
        other.write_text(background + "".join(f"{name}:1,2,3::\r\n" for name in ("cell", "platelet")))
        assert read_dataset(tmp_path / form, form).class_names == ("cell", "platelet")
        other.write_text(background + "".join(f"{name}:1,2,3::\r\n" for name in names))
        with pytest.raises(DatasetError) as caught:
            read_dataset(tmp_path / form, form)
        assert str(caught.value).startswith(f"{other}: {message.format(tmp_path / form / file, other)}")


def test_a_line_of_another_form_in_a_labelmap_is_refused_and_another_kind_of_file_left_alone(tmp_path: Path) -> None:
    test_formats_yolo.make(tmp_path)
    (tmp_path / "labelmap.txt").write_text("cell:::\nplatelet\n")
    assert "labelmap.txt:2: not of the form name:r,g,b:parts:actions" in test_formats_yolo.refusal(tmp_path)
    (tmp_path / "labelmap.txt").write_text("item {\n  id: 1\n  name: 'x'\n}\n")
    assert read_dataset(tmp_path, "yolo").class_names == ("cell", "platelet")


@pytest.mark.parametrize("tool", ["yolo", "coco", "cvat", "label-studio"])
def test_a_labelmap_is_compared_in_an_import_and_numbers_no_classes(tool, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    exported_by(tool, handout)
    lines = [f"{name}:1,2,3::\n" for name in CLASSES]
    (handout / "labelmap.txt").write_text("background:0,0,0::\n" + "".join(lines))
    import_labels(handout, tool, Record.read(handout))
    (handout / "labelmap.txt").write_text("background:0,0,0::\n" + "".join(lines[1:]))
    with pytest.raises(LabelsError, match=r"labelmap.txt: class 0 is"):
        import_labels(handout, tool, Record.read(handout))
    if tool == "yolo":
        (handout / "data.yaml").unlink()
        with pytest.raises(LabelsError, match="has no list of classes"):
            import_labels(handout, tool, Record.read(handout))


SWAPPED = [CLASSES[1], CLASSES[0], CLASSES[2]]


@pytest.mark.parametrize("tool", ["yolo", "coco", "cvat", "label-studio"])
@pytest.mark.parametrize(
    "file", ["classes.txt", "labels/classes.txt", "a/b/obj.names", "notes.json", "other/data.yaml"]
)
def test_every_list_of_an_import_is_compared(tool, file, ledger, query, tmp_path):
    handout = export(ledger, query, tool, tmp_path / "handout")
    exported_by(tool, handout)
    for names in (list(CLASSES), SWAPPED, list(CLASSES[:2]), [*CLASSES, "dog"]):
        write_list(handout / file, names)
        if names == list(CLASSES):
            assert len(import_labels(handout, tool, Record.read(handout)).truth) == len(IDS)
            continue
        with pytest.raises(LabelsError, match="keep the list that the labels were made with") as caught:
            import_labels(handout, tool, Record.read(handout))
        assert str(handout / file) in str(caught.value)
        assert str(caught.value).count(str(handout)) >= 2


@pytest.mark.parametrize("name", [True, None, 1.0, 3])
def test_a_category_that_is_no_text_is_refused_in_an_import(name, ledger, query, tmp_path):
    path = exported_by("coco", export(ledger, query, "coco", tmp_path / "handout"))
    content = json.loads(path.read_text())
    content["categories"].append({"id": 9, "name": name})
    path.write_text(json.dumps(content))
    with pytest.raises(LabelsError, match=f"a category is named {name!r}: put it in quotes"):
        import_labels(path, "coco", Record.read(tmp_path / "handout"))


REPEATED_IDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "two categories one id": lambda coco: coco["categories"].append({"id": 1, "name": "dog"}),
    "lists an image twice": lambda coco: coco["images"].append({"id": 1, "file_name": "x.jpg"}),
}


@pytest.mark.parametrize("message", REPEATED_IDS)
def test_an_id_that_is_there_twice_is_refused_in_an_import(message, ledger, query, tmp_path):
    path = exported_by("coco", export(ledger, query, "coco", tmp_path / "handout"))
    content = json.loads(path.read_text())
    REPEATED_IDS[message](content)
    path.write_text(json.dumps(content))
    with pytest.raises(LabelsError, match=message):
        import_labels(path, "coco", Record.read(tmp_path / "handout"))


# Roboflow's root

ROOT = {"id": 0, "name": "blood", "supercategory": "none"}


def below_root(root: str = "blood") -> list[dict[str, Any]]:
    return [{**category, "supercategory": root} for category in test_formats_coco.CATEGORIES]


def test_the_root_of_all_categories_is_left_out_with_a_note(tmp_path: Path) -> None:
    make_coco(tmp_path, [ROOT, *below_root()])
    dataset = read_dataset(tmp_path, "coco")
    assert dataset.class_names == ("cell", "platelet")
    assert "category 0 'blood' left out: the root of the others, without annotations" in dataset.notes[0]


@pytest.mark.parametrize("why", ["annotated", "other supercategory", "other id", "one is not below"])
def test_a_category_that_is_no_root_stays(why: str, tmp_path: Path) -> None:
    root = {**ROOT, "supercategory": "x"} if why == "other supercategory" else ROOT
    root = {**ROOT, "id": 9} if why == "other id" else root
    below = below_root()[:1] + test_formats_coco.CATEGORIES[1:] if why == "one is not below" else below_root()
    of_root = {**test_formats_coco.BOX, "category_id": 0}
    make_coco(tmp_path, [root, *below], *([of_root] if why == "annotated" else []))
    dataset = read_dataset(tmp_path, "coco")
    assert "blood" in dataset.class_names
    assert not dataset.notes


def test_roboflows_root_of_the_same_name_is_no_second_class_of_an_import(ledger, query, tmp_path):
    path = exported_by("coco", export(ledger, query, "coco", tmp_path / "handout"))
    content = json.loads(path.read_text())
    for category in content["categories"]:
        category["supercategory"] = "crab"
    content["categories"].insert(0, {"id": 0, "name": "crab", "supercategory": "none"})
    path.write_text(json.dumps(content))
    assert len(import_labels(path, "coco", Record.read(tmp_path / "handout")).truth) == len(IDS)


def test_a_name_that_yaml_changes_is_refused_in_an_import(ledger, query, tmp_path):
    handout = export(ledger, query, "yolo", tmp_path / "handout")
    (handout / "data.yaml").write_text("names: [crab, NO, eel]\n")
    with pytest.raises(LabelsError, match=r'data\.yaml:1: names: class 1 is False: put it in quotes, "NO"'):
        import_labels(handout, "yolo", Record.read(handout))
