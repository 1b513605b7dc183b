"""The project file: what is to be labelled, for which detector, chosen how."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raylearn.config import (
    DatasetSection,
    DetectorSection,
    EvaluationSection,
    Experiment,
    ResourcesSection,
    ScoringSection,
    Section,
    TrainingSection,
    refuse_unknown_options,
)
from raylearn.data.storage import scheme_of
from raylearn.detectors import family_named
from raylearn.errors import QueryError, nearest
from raylearn.handoff.exchange import ONLY_COPIES, Tool
from raylearn.measures.axes import Aggregation, Probabilities, Uncertainty, Weighting
from raylearn.strategies import AXES, DEFAULT, Strategy, asking, make_strategy, strategy_named

_WRITTEN_OUT = {"uncertainty": "entropy", "aggregation": "sum", "weighting": "none", "probabilities": "background"}
"""What project files of former versions say of every strategy, also of one that has no such option."""


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


class QuerySection(Section):
    """How the images of a round are chosen, and who gets them."""

    strategy: str = Field(DEFAULT, description="by uncertainty, a control, or another that is installed")
    uncertainty: Uncertainty | None = Field(
        None, description="how uncertain one detection is; null, here and below: the strategy's own"
    )
    aggregation: Aggregation | None = Field(None, description="how the detections of an image become its score")
    weighting: Weighting | None = Field(None, description="factor of a detection by its predicted class")
    weight_cap: float | None = Field(None, gt=0, description="upper limit of a class weight")
    probabilities: Probabilities | None = Field(None, description="how class scores are read as probabilities")
    options: dict[str, float | int | bool | str] = Field(
        default_factory=dict, description="of another strategy, such as one that a package adds"
    )
    size: int = Field(..., ge=1, description="images labelled per round")
    format: Tool = Field("label-studio", description="the annotation tool that gets them, and gives them back")
    images: Literal["copy", "uri"] | None = Field(
        None, description="copy them for the tool, or leave them where they are; null: as the tool needs"
    )
    boxes_above: float = Field(0.25, ge=0, le=1, description="detections from this confidence on are pre-annotations")

    @model_validator(mode="after")
    def _nothing_without_meaning(self) -> "QuerySection":
        if self.images == "uri" and self.format in ONLY_COPIES:
            raise ValueError(f"{self.format} knows images by their files' names alone: leave query.images out")
        try:
            chosen = self.chosen
        except QueryError as error:
            raise ValueError(str(error)) from error
        if not chosen.asks:
            raise ValueError(f"strategy {self.strategy} chooses no images: {nearest(self.strategy, asking())}")
        if chosen.simulation_only:
            raise ValueError(f"strategy {self.strategy} looks at labels that nobody has made yet: for simulations only")
        return self

    @property
    def chosen(self) -> Strategy:
        """The strategy with its options; those of the default one have keys of their own here."""
        own = {name: getattr(self, name) for name in (*AXES, "weight_cap")}
        known = {field.name for field in fields(strategy_named(self.strategy))}
        given = {
            name: value
            for name, value in own.items()
            if value is not None and (name in known or value != _WRITTEN_OUT.get(name))
        }
        return make_strategy(self.strategy, {**given, **self.options})


class Project(Section):
    """A pool of images without labels, to be labelled round by round by people."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="for reports")]
    pool: str = Field(..., description="images that may be labelled: a folder, a glob, a list, a prefix")
    root: Path | None = Field(None, description="local files of the pool are read below it; null: the pool's own")
    held_out: DatasetSection = Field(
        ..., description="an annotated data set, whose test split every round is measured on"
    )
    labelled: DatasetSection | None = Field(
        None, description="images of the pool that are labelled already: the pool split of a data set; null: none"
    )
    query: QuerySection = Field(..., description="how the images of a round are chosen, and for which tool")
    detector: DetectorSection = Field(DetectorSection(), description="the model")
    training: TrainingSection = Field(TrainingSection(), description="one training of it")
    scoring: ScoringSection = Field(ScoringSection(), description="its pass over the unlabelled images")
    evaluation: EvaluationSection = Field(EvaluationSection(), description="its measurement on the held-out images")
    seed: int = Field(0, ge=0, lt=2**32, description="of trainings, of chance, and of the order of equal scores")
    resources: ResourcesSection = Field(ResourcesSection(), description="what Ray is asked for")

    def same_as(self, other: "Project") -> bool:
        """Whether it is the same project; what a strategy does by default may be written out or not."""
        choice = {"strategy", "options", "weight_cap", *AXES}
        rest = [project.model_dump(exclude={"query": choice}) for project in (self, other)]
        return rest[0] == rest[1] and self.query.chosen == other.query.chosen

    @model_validator(mode="after")
    def _options_are_known(self) -> "Project":
        refuse_unknown_options(self.detector, self.training)
        return self

    @model_validator(mode="after")
    def _a_query_can_be_answered(self) -> "Project":
        scored = self.scoring.pool_size
        if scored is not None and scored < self.query.size:
            raise ValueError(f"scoring.pool_size {scored} is less than query.size {self.query.size}: raise it")
        return self

    def from_anywhere(self) -> "Project":
        """The same with absolute paths, so that later steps may be done from another folder."""
        pool = self.pool if scheme_of(self.pool) else str(Path(self.pool).absolute())
        model = family_named(self.detector.family).resolve(self.detector.model)
        weights = _absolute(self.detector.initial_weights)
        detector = self.detector.model_copy(update={"model": model, "initial_weights": weights})
        datasets = {
            name: section.model_copy(update={"path": _absolute(section.path), "root": _absolute(section.root)})
            for name in ("held_out", "labelled")
            if (section := getattr(self, name)) is not None
        }
        return self.model_copy(update={"pool": pool, "root": _absolute(self.root), "detector": detector, **datasets})

    @property
    def experiment(self) -> Experiment:
        """The one trial that a simulation of this project would be."""
        query, chosen = self.query, self.query.chosen
        arms: dict[str, Any] = {"uncertainty": []}
        if chosen.name == DEFAULT and chosen.max_per_group is None:
            cap = chosen.own_options.get("weight_cap")
            arms = {**{axis: [value] for axis, value in chosen.axes.items()}, "weight_cap": cap}
        elif not chosen.is_control:
            arms["strategies"] = [{"name": chosen.name, **chosen.own_options}]
        arms["controls"] = [chosen.name] if chosen.is_control else []
        sections = ("detector", "training", "scoring", "evaluation", "resources")
        return Experiment.model_validate(
            {
                "name": self.name,
                "dataset": self.held_out.model_dump(),
                **{section: getattr(self, section).model_dump() for section in sections},
                "initial_size": query.size,
                "budget": query.size,
                "arms": {**arms, "query_size": [query.size]},
                "seeds": [self.seed],
            }
        )
