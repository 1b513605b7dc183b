"""One scoring pass, as a job."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raylearn.detectors.base import CHECKPOINT_FILE, DetectorSettings
from raylearn.errors import RaylearnError
from raylearn.learning.jobs import WorkResources
from raylearn.learning.store import artifact_key
from raylearn.scoring.ledger import Ledger
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.pipeline import ScoringPlan, default_batch_size, score_manifest


@dataclass(frozen=True)
class ScoringJob:
    """Scores a manifest with a trained model.

    Args:
        training_key: decides the checkpoint.
        training_folder: where the checkpoint is.
        settings: what decides the detections.
        manifest: what to score.
        batch_size: images per call of the model, no influence on the result; None leaves it to the device.
    """

    training_key: str
    training_folder: Path
    settings: DetectorSettings
    manifest: Manifest
    batch_size: int | None

    kind = "ledger"

    @cached_property
    def key(self) -> str:
        return artifact_key(
            kind=self.kind,
            recipe=2,  # raise it when the code comes to score otherwise
            training=self.training_key,
            settings=asdict(self.settings),
            manifest=self.manifest.hash,
        )

    def run(self, folder: Path, resources: WorkResources) -> Mapping[str, Any]:
        plan = ScoringPlan(
            checkpoint=str(self.training_folder / CHECKPOINT_FILE),
            settings=self.settings,
            batch_size=self.batch_size or default_batch_size(resources.gpus > 0),
            num_actors=resources.scoring_actors,
            cpus_per_actor=0 if resources.gpus else 1,
            gpus_per_actor=resources.gpus,
        )
        counts = score_manifest(self.manifest, plan, {"training": self.training_key}, folder)
        if counts.num_errors:
            # Every image could be read when the run began: a ledger without some of them would bias the query for good.
            _, first = next(iter(Ledger.read(folder).errors.items()))
            raise RaylearnError(f"{counts.num_errors} pool images cannot be scored, the first: {first}")
        return asdict(counts)
