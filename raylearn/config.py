"""The experiment file: everything a run depends on, as frozen, validated models."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from raylearn.data.reef import MIN_SIDE, ReefSettings
from raylearn.detectors import built_in_families, default_family, family_named
from raylearn.errors import ConfigError, DetectorError, QueryError, nearest
from raylearn.measures.aggregation import AGGREGATIONS
from raylearn.measures.uncertainty import PROBABILITIES, UNCERTAINTIES
from raylearn.measures.weighting import WEIGHTINGS
from raylearn.strategies import BASELINE, UPPER_BOUND, Strategy, controls, make_strategy
from raylearn.strategies import Uncertainty as ByUncertainty

if TYPE_CHECKING:
    Uncertainty: TypeAlias = str
    Aggregation: TypeAlias = str
    Weighting: TypeAlias = str
    Probabilities: TypeAlias = str
else:  # as the tables of raylearn.measures have them, for messages, --help and the schema
    Uncertainty = Literal[tuple(UNCERTAINTIES)]
    Aggregation = Literal[AGGREGATIONS]
    Weighting = Literal[WEIGHTINGS]
    Probabilities = Literal[PROBABILITIES]
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
Tracker = Literal["mlflow", "wandb"]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{repeated[0]} stands twice in the list: name it once")
    return values


def _as_entry(entry: Any) -> Any:
    """A strategy of the list, as a mapping; refused where it cannot be made."""
    entry = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError("a strategy is its name, or a section with name and its options")
    try:
        found = make_strategy(entry["name"], _options(entry))
    except QueryError as error:
        raise ValueError(str(error)) from error
    if found.is_control:
        raise ValueError(f"{entry['name']} is a control: name it in arms.controls")
    return entry


def _options(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "name"}


def _is_control(name: str) -> str:
    known = controls()
    if name not in known:
        raise ValueError(f"unknown value {name!r}: {nearest(name, known)}")
    return name


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values_and_nul(cls, value: Any) -> Any:
        for given in value if isinstance(value, list | tuple) else [value]:
            if isinstance(given, bool):  # pydantic would take it for a number
                raise ValueError(
                    f"{str(given).lower()} is no value here (YAML takes yes, no, on and off for true and false: put a "
                    "word in quotes)"
                )
            if isinstance(given, str) and "\0" in given:
                raise ValueError("a text with a NUL character, which no name or path can have")
        return value


class ReefSection(Section):
    """The embedded data set: small drawn underwater scenes, in clips of near-duplicate frames."""

    seed: int = Field(ReefSettings.seed, ge=0, description="another seed, another reef; not a trial's seed")
    num_pool: int = Field(ReefSettings.num_pool, ge=1, le=10**6, description="frames that may be labelled")
    num_test: int = Field(ReefSettings.num_test, ge=1, le=10**6, description="held-out frames")
    width: int = Field(ReefSettings.width, ge=MIN_SIDE, le=8192, description="of a frame, pixels")
    height: int = Field(ReefSettings.height, ge=MIN_SIDE, le=8192, description="of a frame, pixels")
    frames_per_clip: int = Field(
        ReefSettings.frames_per_clip, ge=1, le=10**6, description="mean number of frames in a clip"
    )


class DatasetSection(Section):
    """Where images and ground truth come from, and which split is labelled from and which is held out."""

    format: Literal["reef", "yolo", "coco", "voc"] = Field(
        ..., description="how images and labels lie on disk; reef is generated and needs no files"
    )
    path: Path | None = Field(None, description="the data set's folder (or data.yaml); not for reef")
    pool: tuple[str, ...] | None = Field(None, description="split names that may be labelled; the format's usual ones")
    test: tuple[str, ...] | None = Field(None, description="split names held out; the format's usual ones")
    root: Path | None = Field(None, description="files outside of this folder are not read; null: the data set's own")
    missing_labels: Literal["refuse", "background", "skip"] = Field(
        "refuse", description="an image without a label file: an error, an empty frame, or left out"
    )
    bad_boxes: Literal["refuse", "drop"] = Field(
        "refuse", description="a label row that is wrong: an error, or left out and reported"
    )
    reef: ReefSection = Field(ReefSection(), description="size and look of the generated data set; for format reef")

    @property
    def reading(self) -> dict[str, Any]:
        """How the files are read, by the names of raylearn.data.formats."""
        return {
            "pool": self.pool,
            "test": self.test,
            "missing_labels": self.missing_labels,
            "bad_boxes": self.bad_boxes,
            "root": self.root,
        }

    @model_validator(mode="after")
    def _path_where_needed(self) -> "DatasetSection":
        if self.format == "reef" and self.path is not None:
            raise ValueError("the reef data set is generated: remove dataset.path, or name another dataset.format")
        if self.format != "reef" and self.path is None:
            raise ValueError(f"a data set in {self.format} format needs dataset.path")
        return self


class DetectorSection(Section):
    """The model, and the settings every prediction of it shares."""

    family: str = Field(
        default_family(),
        description="whose models, training and checkpoints: " + ", ".join(built_in_families()),
    )
    model: str = Field("yolov5n", description="an architecture of the family: yolov5n, yolov8s, yolo11m, ...")
    image_size: int = Field(
        640, ge=32, le=8192, multiple_of=32, description="side of the square images are fitted into, pixels"
    )
    initial_weights: Path | None = Field(
        None, description="a checkpoint or state dict every training starts from; null trains from scratch"
    )


class TrainingSection(Section):
    """How the detector is trained in each round, always from the same initial weights."""

    epochs: int = Field(100, ge=1, le=100_000, description="passes over the labelled images")
    batch_size: int = Field(16, ge=1, description="images per training step")
    options: dict[str, float | int | bool | str] = Field(
        default_factory=dict,
        description="more of the family's training arguments, such as lr0, mosaic, optimizer; amp: bf16 on CPUs too",
    )

    @field_validator("options", mode="before")
    @classmethod
    def _exponents_are_numbers(cls, options: Any) -> Any:
        """YAML 1.1 reads 1e-3, without a dot, as a word."""
        if not isinstance(options, dict):
            return options
        return {
            name: float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
            for name, value in options.items()
        }

    @property
    def arguments(self) -> dict[str, float | int | bool | str]:
        """As a detector's `fit` takes them."""
        return {**self.options, "epochs": self.epochs, "batch": self.batch_size}


def refuse_unknown_options(detector: DetectorSection, training: TrainingSection) -> None:
    """Raises ValueError for a family that is unknown or cannot train, or a training option that it does not have."""
    try:
        family = family_named(detector.family)
    except DetectorError as error:
        raise ValueError(str(error)) from error
    if family.no_training:
        raise ValueError(family.no_training)
    for name in training.options:
        if name not in family.training_options:
            known = nearest(name, family.training_options)
            raise ValueError(f"training: unknown training option {name!r}: {known}")


class ScoringSection(Section):
    """The pass of the detector over the unlabelled pool."""

    pool_size: int | None = Field(None, ge=1, description="score a random part of this many images; null scores all")
    confidence: float = Field(0.05, ge=0, le=1, description="detections below it do not count")
    iou: float = Field(0.7, ge=0, le=1, description="overlap above which NMS drops the weaker box")
    max_detections: int = Field(100, ge=1, description="most confident boxes kept per image; cuts what sum adds up")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="images per call of the model; changes no result; null: 64 on a GPU, 4 on a CPU",
    )


class EvaluationSection(Section):
    """The measurement on the held-out split: COCO mAP."""

    confidence: float = Field(0.001, ge=0, le=1, description="detections below it are not measured")
    iou: float = Field(0.7, ge=0, le=1, description="overlap above which NMS drops the weaker box")
    max_detections: int = Field(300, ge=1, description="most confident boxes measured per image")


class ArmsSection(Section):
    """The grid: every combination of the axes is an arm; other strategies and the controls stand beside them."""

    uncertainty: Annotated[tuple[Uncertainty, ...], AfterValidator(_distinct)] = Field(
        ("entropy",), description="how uncertain one detection is; [] leaves only the controls"
    )
    aggregation: Annotated[tuple[Aggregation, ...], AfterValidator(_distinct), Field(min_length=1)] = Field(
        ("sum",), description="how the detections of an image become its score"
    )
    weighting: Annotated[tuple[Weighting, ...], AfterValidator(_distinct), Field(min_length=1)] = Field(
        ("none",), description="factor of a detection by its predicted class, from the boxes labelled so far"
    )
    weight_cap: float | None = Field(None, gt=0, description="upper limit of a class weight")
    probabilities: Annotated[tuple[Probabilities, ...], AfterValidator(_distinct), Field(min_length=1)] = Field(
        ("background",), description="how class scores are read as probabilities"
    )
    query_size: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_distinct), Field(min_length=1)] = (
        Field(..., description="images labelled per round")
    )
    strategies: tuple[Annotated[dict[str, Any], BeforeValidator(_as_entry)], ...] = Field(
        (), description="other strategies, by name, or as {name: ..., and its options}"
    )
    controls: Annotated[tuple[Annotated[str, AfterValidator(_is_control)], ...], AfterValidator(_distinct)] = Field(
        (BASELINE, UPPER_BOUND), description="what every arm has to beat, and one training on the whole pool"
    )

    @model_validator(mode="after")
    def _something_to_run(self) -> "ArmsSection":
        if not (self.uncertainty or self.strategies or self.controls):
            raise ValueError(
                "uncertainty, strategies and controls are all empty, so there is nothing to run: name an arm"
            )
        return self

    @property
    def chosen(self) -> list[Strategy]:
        """The strategies of the grid: controls first, then every combination of the axes, then the others."""
        cells = itertools.product(self.uncertainty, self.aggregation, self.weighting, self.probabilities)
        grid = (ByUncertainty(*cell, None if cell[2] == "none" else self.weight_cap) for cell in cells)
        others = (make_strategy(entry["name"], _options(entry)) for entry in self.strategies)
        return [*map(make_strategy, self.controls), *grid, *others]


class ResourcesSection(Section):
    """What Ray is asked for; changes how fast a result comes, never the result."""

    training_cpus: int = Field(1, ge=1, description="CPUs (and torch threads) of one training")
    scoring_actors: int | None = Field(
        None, ge=1, description="detector actors of a scoring pass; null: all GPUs, or 1"
    )
    gpus_per_task: float | None = Field(
        None, ge=0, le=1, description="GPUs of a training or actor, 0 to 1; null: 1 if Ray has any"
    )
    max_trials_at_once: int | None = Field(
        None,
        ge=1,
        description="trials in flight, a process each; null: 3 per training at once on GPUs, 2 on CPUs; cluster: >= 16",
    )


class Experiment(Section):
    """One experiment: a question, a data set, a detector, and the arms that are compared."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="also the run folder's name")]
    question: str = Field("", description="what the comparison is to answer; the report's first line")
    dataset: DatasetSection = Field(..., description="images and ground truth")
    detector: DetectorSection = Field(DetectorSection(), description="the model")
    training: TrainingSection = Field(TrainingSection(), description="one training of it")
    scoring: ScoringSection = Field(ScoringSection(), description="its pass over the unlabelled images")
    evaluation: EvaluationSection = Field(EvaluationSection(), description="its measurement on the held-out images")
    initial_size: int = Field(..., ge=1, description="images of the class-balanced set that round 0 trains on")
    budget: int = Field(..., ge=1, description="images labelled after it, the same for every query size")
    arms: ArmsSection = Field(..., description="what is compared")
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], AfterValidator(_distinct), Field(min_length=1)
    ] = Field((0,), description="each repeats every arm with its own initial set and training")
    resources: ResourcesSection = Field(ResourcesSection(), description="what Ray is asked for")
    tracking: Annotated[tuple[Tracker, ...], AfterValidator(_distinct)] = Field(
        (), description="who is told of every round, beside TensorBoard: mlflow, wandb"
    )

    @model_validator(mode="after")
    def _options_are_known(self) -> "Experiment":
        refuse_unknown_options(self.detector, self.training)
        return self

    @model_validator(mode="after")
    def _budget_is_a_whole_number_of_queries(self) -> "Experiment":
        for size in self.arms.query_size:
            if self.budget % size:
                raise ValueError(
                    f"budget {self.budget} is no multiple of query_size {size}: arms could not be compared at its end"
                )
        return self

    @model_validator(mode="after")
    def _a_query_can_be_answered(self) -> "Experiment":
        scored, largest = self.scoring.pool_size, max(self.arms.query_size)
        if scored is not None and scored < largest:
            raise ValueError(f"scoring.pool_size {scored} is less than query_size {largest}: raise it, or lower that")
        return self


# Beside YAMLError, what PyYAML's constructors raise on "!!int ''", "!!timestamp x", ten thousand brackets and the like.
_NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, which of two equal keys would take the later without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in names:
                    raise yaml.YAMLError(f"{key.value!r} stands twice, also in line {key.start_mark.line + 1}")
                names.add((key.tag, key.value))
        return node


File = TypeVar("File", bound=Section)


def load_experiment(path: Path, overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> Experiment:
    """Reads an experiment file; see `load_file`."""
    return load_file(path, Experiment, overrides, settings)


def load_file(
    path: Path, kind: type[File], overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> File:
    """Reads a settings file and replaces values in it.

    Args:
        path: of the file.
        kind: what it holds.
        overrides: texts `key.path=value`, whose values are YAML.
        settings: key or key.path -> value; of a mapping each key by itself.

    Raises:
        ConfigError: no such file, no YAML, an unknown key or a value that does not fit.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except _NO_YAML as error:
        raise ConfigError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        keys = ", ".join(name for name, field in kind.model_fields.items() if field.is_required())
        raise ConfigError(f"{path} must be a mapping of keys such as {keys}; see `raylearn schema`")
    return from_content(content, kind, str(path), overrides, settings)


def from_content(
    content: Mapping[str, Any],
    kind: type[File],
    source: str,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> File:
    """Settings from what a file would hold; see `load_file`. `source` is what errors name."""
    changed = dict(content)
    for override in overrides:
        _apply_override(changed, override)
    for key, value in _flat_settings(settings or {}):
        _put(changed, key, value, f"{key}={value!r}")
    try:
        made = kind.model_validate(changed)
        dump_file(made)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_describe(error, kind)}") from error
    except ValueError as error:  # such as half of a surrogate pair
        raise ConfigError(f"{source} holds a text that cannot be written out again: {error}") from error
    return made


def _flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dump_file(settings: Section) -> str:
    """The settings with every default written out, as YAML that `load_file` reads back."""
    return yaml.safe_dump(json.loads(settings.model_dump_json()), sort_keys=False, allow_unicode=True)


def key_values(texts: Sequence[str]) -> dict[str, Any]:
    """Options given as `key=value`, whose values are YAML.

    Raises:
        ConfigError: one that is of another form.
    """
    content: dict[str, Any] = {}
    for text in texts:
        _apply_override(content, text)
    return content


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value, such as training.epochs=20")
    try:
        _put(content, key, yaml.load(value, _UniqueKeys), override)
    except _NO_YAML as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"override {override!r}: the value is no YAML: {cause}") from error


def _put(content: dict[str, Any], key: str, value: Any, override: str) -> None:
    *parents, last = key.split(".")
    section = content
    for name in parents:
        inner = section.get(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override!r}: {name} is no section")
        section[name] = dict(inner)  # its own, where two sections share a YAML anchor
        section = section[name]
    section[last] = value


def _describe(error: ValidationError, kind: type[Section]) -> str:
    """The first of pydantic's errors in one line: where, what, and the nearest right spelling."""
    first, *others = error.errors()
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = f"unknown key {where!r}: {nearest(str(first['loc'][-1]), _keys_beside(first['loc'], kind))}"
    elif first["type"] == "missing":
        what = f"{where} is missing"
    elif first["type"] == "literal_error" and isinstance(first["input"], str):
        known = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        what = f"{where}: unknown value {first['input']!r}: {nearest(first['input'], known)}"
    elif first["type"] == "tuple_type":
        what = f"{where} must be a list, as in [{str(first['input'])[:80]}]"
    elif first["type"] in ("model_type", "dict_type"):
        what = f"{where} must be a section of keys and values"
    else:
        message = first["msg"].removeprefix("Value error, ")
        what = f"{where}: {message}" if where else message
    return what + (f" (and {len(others)} more)" if others else "")


def _keys_beside(location: tuple[int | str, ...], kind: type[Section]) -> list[str]:
    model: Any = kind
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation
        model = next((choice for choice in get_args(model) if hasattr(choice, "model_fields")), model)  # of "X | None"
    return list(model.model_fields)
