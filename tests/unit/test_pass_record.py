"""plan.json: what a pass was begun with."""

import json

import pytest

from raylearn.data.storage import Folder
from raylearn.detectors.base import DetectorSettings
from raylearn.errors import LedgerError
from raylearn.scoring.pass_record import PLAN_FILE, add_record, first_difference, read_record, refuse_another

RECORD = {
    "checkpoint": "c",
    "class_names": ["crab"],
    "engine": {"backend": "torch", "precision": "fp32"},
    "manifest": "m",
    "num_images": 3,
    "part_size": 2,
    "settings": {"iou": 0.7},
    "versions": {"torch": "2"},
}


def test_a_record_is_read_back_and_a_folder_without_one_is_new(tmp_path):
    folder = Folder.at(tmp_path)
    assert read_record(folder) is None
    add_record(folder, RECORD)
    assert read_record(folder) == RECORD


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "{}", json.dumps({**RECORD, "part_size": "2"})])
def test_a_record_of_another_shape_is_refused_and_named(tmp_path, text):
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(LedgerError, match=r"plan\.json is damaged, or of another program: give another folder"):
        read_record(Folder.at(tmp_path))


def test_of_two_that_begin_at_once_the_second_is_refused_with_the_difference(tmp_path):
    add_record(Folder.at(tmp_path), RECORD)
    with pytest.raises(LedgerError, match=r"settings\.iou=0\.7, not 0\.6"):
        add_record(Folder.at(tmp_path), {**RECORD, "settings": {"iou": 0.6}})


def test_a_difference_is_told_by_its_dotted_name():
    assert first_difference(RECORD, RECORD) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}) == "a.c=None, not 2"


@pytest.mark.parametrize(
    ("there", "asked", "said"), [(True, False, "True, not False"), (False, True, "False, not True")]
)
def test_a_pass_with_embeddings_does_not_go_on_without_them_nor_the_other_way(tmp_path, there, asked, said):
    def record(embeddings: bool) -> dict[str, object]:
        return {**RECORD, "settings": DetectorSettings(640, 0.05, 0.7, 100, embeddings=embeddings).facts}

    with pytest.raises(LedgerError, match=rf"scoring pass with settings\.embeddings={said}"):
        refuse_another(Folder.at(tmp_path), record(there), record(asked))
    refuse_another(Folder.at(tmp_path), record(there), record(there))
