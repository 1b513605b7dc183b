"""Suppression by torchvision's operator, without its Python package."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from raylearn.detectors import suppression
from raylearn.detectors.suppression import suppress, suppress_batch

PROGRAM = """
import sys
import torch
from raylearn.detectors.suppression import suppress

boxes = torch.rand(3000, 4, generator=torch.Generator().manual_seed(0)) * 500
boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] / 4
scores = torch.rand(3000, 6, generator=torch.Generator().manual_seed(1))
kept = suppress(boxes, scores, 0.5, 2000, (640, 640))
print("torchvision" in sys.modules, "torch._dynamo" in sys.modules)

import torchvision

confidences, class_ids = scores.max(1)
theirs = torchvision.ops.nms(boxes + class_ids[:, None] * 7680.0, confidences, 0.5)
print(torch.equal(kept, theirs[:2000]), len(kept), len(theirs) < 3000)
"""


def test_torchvisions_suppression_is_used_without_its_package_and_stands_beside_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["False False", "True 2000 True", ""]


@pytest.mark.parametrize("boxes_at_once", [1, 100, 10_000])
def test_many_images_at_once_keep_what_each_keeps_alone(boxes_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "_BOXES_AT_ONCE", boxes_at_once)
    rng = np.random.default_rng(0)
    counts = [0, 40, 1, 200, 0, 90, 0]
    starts = np.cumsum([0, *counts])
    corners = rng.uniform(-20, 640, (sum(counts), 2)).astype(np.float32)
    boxes = torch.from_numpy(np.hstack([corners, corners + rng.uniform(40, 200, (sum(counts), 2))]).astype(np.float32))
    scores = torch.from_numpy(rng.integers(1, 9, (sum(counts), 3)).astype(np.float32) / 10)  # with many that are equal
    images = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    alone = [
        suppress(boxes[start:end], scores[start:end], 0.5, 30, (640, 640)) + start for start, end in pairwise(starts)
    ]
    together = suppress_batch(boxes, scores, images, counts, 0.5, 30, (640, 640))
    assert together.tolist() == torch.cat(alone).tolist()
    assert len(alone[3]) == 30  # the limit cut it
    assert 0 < len(alone[1]) < 40  # suppression did


def test_where_an_image_lies_in_its_batch_does_not_round_its_boxes() -> None:
    # Their overlap is a hair above the threshold, which an offset in single precision would lose.
    pair = torch.tensor([[0.01, 0.01, 100.01, 100.01], [0.01, 33.33, 100.01, 133.33]])
    iou = 66.68 / 133.32 - 1e-6
    scores = torch.tensor([[0.9], [0.8]])
    num = 200
    images = torch.repeat_interleave(torch.arange(num), 2)
    kept = suppress_batch(pair.repeat(num, 1), scores.repeat(num, 1), images, [2] * num, iou, 10, (640, 640))
    assert kept.tolist() == list(range(0, 2 * num, 2))
    assert suppress(pair, scores, iou, 10, (640, 640)).tolist() == [0]


def test_no_candidates_in_a_batch_keep_nothing() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert len(suppress_batch(torch.empty(0, 4), torch.empty(0, 2), nothing, [0, 0], 0.5, 10, (64, 64))) == 0
