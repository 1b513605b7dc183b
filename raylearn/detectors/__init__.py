"""Detectors: families and how they are found. A family's library is imported only where one of its detectors is used.

A family is a `FAMILY` in a module of `raylearn.detectors.families`, or an entry point of the group
`raylearn.detectors` of any other package.
"""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raylearn.detectors import families
from raylearn.detectors.base import CheckpointFacts, Detector, DetectorSettings, Engine
from raylearn.detectors.checkpoint_contents import contents_of, written_facts
from raylearn.detectors.family import Family
from raylearn.errors import CheckpointError, DetectorError, nearest
from raylearn.plugins import registered

ENTRY_POINTS = "raylearn.detectors"


@cache
def built_in_families() -> dict[str, Family]:
    """Name -> family, of those that come with raylearn."""
    modules = (import_module(f"{families.__name__}.{found.name}") for found in pkgutil.iter_modules(families.__path__))
    return {module.FAMILY.name: module.FAMILY for module in modules}


@cache
def _registered() -> tuple[dict[str, Family], dict[str, str]]:
    """Families of other packages by name, and what is wrong with those that cannot be used."""
    found, wrong = registered(ENTRY_POINTS, built_in_families())
    for name, family in list(found.items()):
        if not isinstance(family, Family) or family.name != name:
            wrong[name] = f"{found.pop(name)!r:.100} is not a raylearn Family of this name"
    return found, wrong


def all_families() -> dict[str, Family]:
    """Name -> family, those of other packages last; without those that cannot be used."""
    return {**built_in_families(), **_registered()[0]}


def family_named(name: str) -> Family:
    """Raises DetectorError for a family that nobody registered, or that cannot be used."""
    family = built_in_families().get(name) or all_families().get(name)
    if family is None:
        wrong = _registered()[1]
        if name in wrong:
            raise DetectorError(f"detector.family {name!r}: {wrong[name]}")
        raise DetectorError(f"unknown detector.family {name!r}: {nearest(name, all_families())}")
    return family


@cache
def default_family() -> str:
    """The name of the family that an experiment means which names none."""
    return next(family.name for family in built_in_families().values() if family.is_default)


def family_of(checkpoint: Path) -> Family:
    """The family that a checkpoint is of; nothing in it is run.

    Raises:
        CheckpointError: no such file, or of no family.
    """
    contents = contents_of(checkpoint)
    for family in all_families().values():
        if family.recognises(contents):
            return family
    # its own library may still open it, or say best why not
    return family_named(default_family())


def build_detector(
    model: str,
    settings: DetectorSettings,
    training: Mapping[str, Any] | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
    engine: Engine | None = None,
    family: str | None = None,
) -> Detector:
    """A detector of a family, the default one where none is named; see raylearn.detectors.family.Build."""
    found = family_named(family or default_family())
    return found.build(model, settings, training or {}, device, num_threads, engine or Engine())


def read_checkpoint(path: Path) -> CheckpointFacts:
    """What a checkpoint of any family says of itself; none of its code runs.

    Raises:
        CheckpointError: no file, a torn one, or no detector.
        DetectorError: its head gives no class scores.
    """
    family = family_of(path)
    facts = written_facts(path) if family.recognises(contents_of(path)) else None
    return facts or family.read_checkpoint(path)


def openvino_is_installed() -> bool:
    """Whether the backend openvino can be used by this Python."""
    return find_spec("openvino") is not None


def check_detector(
    model: str, training: Mapping[str, Any], initial_weights: Path | None = None, family: str | None = None
) -> None:
    """Finds before any work what would stop a training; see raylearn.detectors.family.Check."""
    found = family_named(family or default_family())
    if initial_weights is not None and initial_weights.exists():
        _refuse_weights(initial_weights, found)
    found.check(model, training, initial_weights)


def weights_taken(model: str, num_classes: int, initial_weights: Path, family: str | None = None) -> str:
    """What a training takes of its initial weights, in a line; "" where its family cannot say.

    Weights of another task are taken as far as they fit: of a segmentation or pose model's all but the head.

    Raises:
        DetectorError, CheckpointError: see raylearn.detectors.family.Check.
    """
    found = family_named(family or default_family())
    if found.taken is None:
        return ""
    contents = contents_of(initial_weights)
    tasks = (known.other_task(contents) for known in all_families().values() if known.recognises(contents))
    task = next(filter(None, tasks), "")
    taken, total = found.taken(model, num_classes, initial_weights)
    rest = " (the rest, such as the head, is new)" if taken < total else ""
    return f"initial weights{f' of a {task} model' if task else ''}: {taken} of {total} tensors taken{rest}"


def _refuse_weights(path: Path, family: Family) -> None:
    """Raises CheckpointError for initial weights that are no checkpoint, or of a family that none starts from."""
    contents = contents_of(path)
    other = next((known for known in all_families().values() if known.recognises(contents)), family)
    if other.no_training and other is not family:
        raise CheckpointError(
            f"initial weights {path} are of detector.family {other.name}, which scores and does not train, and whose "
            f"tensors fit no other: give weights of the family {family.name}, or null to train from scratch"
        )
