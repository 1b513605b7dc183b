"""Suppression by torchvision's operator, without its Python package."""

import subprocess
import sys

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
