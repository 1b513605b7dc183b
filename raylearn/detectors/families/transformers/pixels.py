"""Canvases as the networks of this family take them."""

import numpy as np
import torch

from raylearn.detectors.families.transformers.isolation import isolate_transformers
from raylearn.errors import DetectorError

isolate_transformers()

from transformers import PreTrainedConfig  # noqa: E402
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # noqa: E402

_NORMALISED = ("deformable_detr",)  # by the library's image processors; the others take plain fractions


def pixel_values(canvases: np.ndarray, config: PreTrainedConfig, device: torch.device) -> torch.Tensor:
    """What the library's image processor makes of images that have their size already.

    Args:
        canvases: (n, height, width, 3) uint8 RGB.
        config: of the network.
        device: where it is.

    Returns:
        (n, 3, height, width) float32.

    Raises:
        DetectorError: the canvases have fewer places than the network has queries.
    """
    _refuse_small(canvases.shape[1:3], config)
    pixels = torch.from_numpy(canvases).to(device).permute(0, 3, 1, 2).float() / 255
    if config.model_type in _NORMALISED:
        mean, std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        pixels = (pixels - mean) / std
    return pixels


def _refuse_small(canvas: tuple[int, ...], config: PreTrainedConfig) -> None:
    strides = getattr(config, "feat_strides", None)  # of networks whose queries are the best places of their grids
    if strides is None:
        return
    places = sum(-(-canvas[0] // stride) * -(-canvas[1] // stride) for stride in strides)
    if places < config.num_queries:
        raise DetectorError(
            f"a canvas of {canvas[1]}x{canvas[0]} has {places} places for the {config.num_queries} queries of "
            f"{config.model_type}: raise the image size, use square canvases, or set num_queries in its config.json"
        )
