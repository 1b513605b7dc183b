"""The experiment file: everything a run depends on, as frozen, validated models."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from raylearn.data.reef import MIN_SIDE, ReefSettings
from raylearn.detectors import built_in_families, default_family, family_named
from raylearn.errors import DetectorError, QueryError, nearest
from raylearn.measures.axes import Aggregation, Probabilities, Uncertainty, Weighting
from raylearn.measures.outcomes import DECIDES, Outcome
from raylearn.strategies import (
    BASELINE,
    UPPER_BOUND,
    Strategy,
    built_in_controls,
    controls,
    is_control,
    make_strategy,
)
from raylearn.strategies import Uncertainty as ByUncertainty

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
    if not is_control(name):
        raise ValueError(f"unknown value {name!r}: {nearest(name, controls())}")
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
    exif: Literal["refuse", "raw", "upright"] = Field(
        "refuse",
        description="labels made for the size of a photograph before its EXIF orientation turns it: an error; boxes of "
        "the picture as it lies in the file, turned with it; or boxes of the upright one",
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
            "exif": self.exif,
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
    model: str = Field(
        "yolov5n",
        description="; ".join(f"{name}: {family.models}" for name, family in built_in_families().items()),
    )
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
    """Raises ValueError for a family that is unknown, or a training option that it does not have."""
    try:
        family = family_named(detector.family)
    except DetectorError as error:
        raise ValueError(str(error)) from error
    for name in training.options:
        if family.no_training:
            raise ValueError(family.no_training)
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
        Field(..., description="images labelled per round; boxes where the budget is in boxes")
    )
    strategies: tuple[Annotated[dict[str, Any], BeforeValidator(_as_entry)], ...] = Field(
        (), description="other strategies, by name, or as {name: ..., and its options}"
    )
    controls: Annotated[tuple[Annotated[str, AfterValidator(_is_control)], ...], AfterValidator(_distinct)] = Field(
        (BASELINE, UPPER_BOUND),
        description="what every arm has to beat, and one training on the whole pool: " + ", ".join(built_in_controls()),
    )

    @model_validator(mode="after")
    def _something_to_run(self) -> "ArmsSection":
        if not (self.uncertainty or self.strategies or self.controls):
            raise ValueError(
                "uncertainty, strategies and controls are all empty, so there is nothing to run: name an arm"
            )
        names = ["-".join(strategy.words) for strategy in self.chosen]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two arms would have the same name, {repeated[0]}: remove one")
        return self

    @property
    def chosen(self) -> list[Strategy]:
        """The strategies of the grid: controls first, then every combination of the axes, then the others."""
        cells = itertools.product(self.uncertainty, self.aggregation, self.weighting, self.probabilities)
        grid = (ByUncertainty(*cell, None if cell[2] == "none" else self.weight_cap) for cell in cells)
        others = (make_strategy(entry["name"], _options(entry)) for entry in self.strategies)
        return [*map(make_strategy, self.controls), *grid, *others]


class PrimarySection(Section):
    """What decides, declared before the run: verdicts are about this outcome and control, all else is an estimate."""

    outcome: Outcome = Field(DECIDES, description="what verdicts are about")
    control: str = Field(BASELINE, description="the control that every other arm is tested against")


class ResourcesSection(Section):
    """What Ray is asked for; changes how fast a result comes, never the result."""

    training_cpus: int = Field(
        1, ge=1, description="CPUs of one training: torch threads on a CPU, loader workers beside a GPU"
    )
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


class BoxBudget(Section):
    """A budget that is counted in boxes, as most annotators are paid; query sizes then are boxes too."""

    boxes: int = Field(..., ge=1, description="boxes labelled after the initial set")


class CostSection(Section):
    """What labelling takes a person, so that the page can show hours too; it changes no query and no result.

    A box takes 7 s by extreme clicking (Papadopoulos et al., ICCV 2017), 35 s as ILSVRC's were drawn (Su et al., 2012).
    """

    image: float = Field(..., ge=0, allow_inf_nan=False, description="seconds for an image, before its first box")
    box: float = Field(
        ...,
        ge=0,
        allow_inf_nan=False,
        description="seconds for a box: 7 by extreme clicking (Papadopoulos et al., ICCV 2017), 35 as in ILSVRC (Su et "
        "al., 2012)",
    )

    @model_validator(mode="after")
    def _something_costs(self) -> "CostSection":
        if not self.image and not self.box:
            raise ValueError("image and box are both 0: give seconds, or leave cost out")
        return self


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
    budget: Annotated[
        Annotated[int, Field(ge=1), Tag("<images>")] | Annotated[BoxBudget, Tag("<boxes>")],
        Discriminator(lambda value: "<boxes>" if isinstance(value, dict | BoxBudget) else "<images>"),
    ] = Field(..., description="images labelled after it, the same for every query size; or {boxes: ...}")
    arms: ArmsSection = Field(..., description="what is compared")
    primary: PrimarySection = Field(PrimarySection(), description="what decides")
    cost: CostSection | None = Field(
        None,
        description="seconds to label an image and a box, for curves over hours; null draws none. For a box: 7 s "
        "by extreme clicking (Papadopoulos et al., ICCV 2017), 35 s in ILSVRC (Su et al., 2012)",
    )
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
    def _something_decides(self) -> "Experiment":
        """The default may be no arm, as it was in runs of before: then the report says that it has no verdicts."""
        control = self.primary.control
        known = [strategy.name for strategy in self.arms.chosen if strategy.is_control and strategy.asks]
        if self.arms.controls and control not in {*known, BASELINE}:
            hint = nearest(control, known) if known else "name one there"
            raise ValueError(
                f"primary.control {control!r} is none of the controls in arms.controls that choose images: {hint}"
            )
        return self

    @model_validator(mode="after")
    def _budget_is_a_whole_number_of_queries(self) -> "Experiment":
        budget = self.budget_size
        for size in self.arms.query_size:
            if budget % size:
                raise ValueError(
                    f"budget {budget} is no multiple of query_size {size}: arms could not be compared at its end"
                )
        return self

    @model_validator(mode="after")
    def _a_query_can_be_answered(self) -> "Experiment":
        scored, largest = self.scoring.pool_size, max(self.arms.query_size)
        if scored is not None and scored < largest and not self.pays_boxes:
            raise ValueError(f"scoring.pool_size {scored} is less than query_size {largest}: raise it, or lower that")
        return self

    @property
    def pays_boxes(self) -> bool:
        """Whether budget and query sizes are boxes, and not images."""
        return isinstance(self.budget, BoxBudget)

    @property
    def budget_size(self) -> int:
        """The budget, in images or in boxes."""
        return self.budget.boxes if isinstance(self.budget, BoxBudget) else self.budget
