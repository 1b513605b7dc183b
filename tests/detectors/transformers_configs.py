"""Tiny configurations of the library's detectors, to be trained and run in a second."""

import json
from pathlib import Path
from typing import Any

_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_OUT = {"out_features": ["stage2", "stage3", "stage4"]}
_RESNET = {**_STAGES, **_OUT, "layer_type": "basic"}
_HGNET = {
    **_STAGES,
    **_OUT,
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 16, 24],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 16, 24, 32],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_kernel_size": [3, 3, 3, 3],
    "stage_numb_of_layers": [1, 1, 1, 1],
}
_DECODER = {
    "num_queries": 20,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 32,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
}
_HYBRID = {
    **_DECODER,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "decoder_in_channels": [32, 32, 32],
    "num_denoising": 10,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "rt_detr": {**_HYBRID, "backbone_config": {**_RESNET, "model_type": "rt_detr_resnet"}},
    "rt_detr_v2": {**_HYBRID, "backbone_config": {**_RESNET, "model_type": "rt_detr_resnet"}},
    "d_fine": {**_HYBRID, "backbone_config": _HGNET, "hidden_expansion": 0.5, "max_num_bins": 8},
    "deformable_detr": {
        **_DECODER,
        "encoder_layers": 1,
        "num_feature_levels": 3,
        "backbone_config": {**_RESNET, "model_type": "resnet"},
    },
}


def write_folder(folder: Path, model_type: str, **more: Any) -> str:
    """A folder that `detector.model` may name."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **CONFIGS[model_type], **more}))
    return str(folder)
