"""What is taken for certain without asking Ultralytics is what Ultralytics says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.detectors import family_named
from raylearn.detectors.families.ultralytics.detector import build_model, check_arguments
from raylearn.detectors.families.ultralytics.known import _FRACTIONS, _NUMBERS, _OPTIMIZERS, _WHOLE, surely_trains

NUMBERS = st.one_of(st.integers(-2, 200), st.floats(-1, 200), st.booleans(), st.just("0.5"))
NAMES = sorted(family_named("ultralytics").training_options | {"epochs", "batch"})


@pytest.mark.parametrize("model", ["yolov5n", "yolov8n", "yolo11n"])
def test_a_model_that_is_taken_for_certain_can_be_built(model: str) -> None:
    assert surely_trains(model, {"epochs": 3, "batch": 8})
    assert build_model(model, num_classes=2) is not None


@pytest.mark.parametrize("model", ["yolov5", "yolov10n", "yolov5n6", "yolo26n", "yolov5n.pt", "rtdetr-l", "x/yolov5n"])
def test_of_another_model_the_library_is_asked(model: str) -> None:
    assert not surely_trains(model, {})


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(NUMBERS, st.sampled_from([*_OPTIMIZERS, "Lion"]))))
def test_arguments_that_are_taken_for_certain_are_the_librarys(arguments: dict[str, object]) -> None:
    if surely_trains("yolov5n", arguments):
        check_arguments(arguments)


def test_every_known_argument_is_one_that_can_be_given() -> None:
    assert {*_FRACTIONS, *_NUMBERS, *_WHOLE} <= set(NAMES)
    assert surely_trains("yolov5n", {"lr0": 0.001, "cls": 1.0, "nbs": 8, "optimizer": "AdamW", "mosaic": 0.0})
