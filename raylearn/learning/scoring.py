"""One scoring pass, as a job."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from raylearn.cluster.devices import PRETEND_GPUS
from raylearn.cluster.machines import detection_versions
from raylearn.data.storage import Folder
from raylearn.detectors import default_family, family_named
from raylearn.detectors.base import CHECKPOINT_FILE, DetectorSettings
from raylearn.errors import RaylearnError
from raylearn.scoring.ledger import Ledger
from raylearn.scoring.manifest import Manifest
from raylearn.scoring.pipeline import score_manifest
from raylearn.scoring.plan import ScoringPlan, default_batch_size
from raylearn.work.jobs import refuse_other_versions
from raylearn.work.resources import WorkResources
from raylearn.work.store import Artifact, artifact_key


@dataclass(frozen=True)
class ScoringJob:
    """Scores a manifest with a trained model.

    Args:
        training: made the checkpoint.
        model: the detector's name.
        settings: what decides the detections.
        manifest: what to score.
        family: of the detector.
        batch_size: images per call of the model, no influence on the result; None leaves it to the device.
    """

    training: Artifact
    model: str
    settings: DetectorSettings
    manifest: Manifest
    batch_size: int | None
    family: str = field(default_factory=default_family)

    kind = "ledger"

    @cached_property
    def key(self) -> str:
        return artifact_key(
            kind=self.kind,
            recipe=2,  # raise it when the code comes to score otherwise
            training=self.training.key,
            # A checkpoint that was lost and trained again may differ in its last bits, on another device for one.
            checkpoint=self.training.files.get(CHECKPOINT_FILE),
            settings=self.settings.facts,
            manifest=self.manifest.hash,
            versions=dict(detection_versions(self.family)),
        )

    def run(self, folder: Folder, resources: WorkResources) -> Mapping[str, Any]:
        """Raises ClusterError on a node whose versions are not those that the key was made of."""
        versions = dict(detection_versions(self.family))
        refuse_other_versions(replace(self), self, versions)
        plan = ScoringPlan(
            checkpoint=self.training.folder.address_of(CHECKPOINT_FILE),
            settings=self.settings,
            batch_size=self.batch_size or default_batch_size(resources.gpus > 0),
            num_actors=resources.scoring_actors,
            cpus_per_actor=0 if resources.gpus else 1,
            gpus_per_actor=resources.gpus,
            versions=versions,
            needs_cuda=resources.gpus > 0 and not os.environ.get(PRETEND_GPUS),
        )
        facts = {"training": self.training.key, **family_named(self.family).facts(self.model)}
        counts = score_manifest(self.manifest, plan, facts, folder)
        if counts.num_errors:
            # Every image could be read when the run began: a ledger without some of them would bias the query for good.
            _, first = next(iter(Ledger.read(folder).errors.items()))
            raise RaylearnError(f"{counts.num_errors} pool images cannot be scored, the first: {first}")
        return asdict(counts)
