"""The project file: what is to be labelled, for which detector, chosen how."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from raylearn.config import (
    Aggregation,
    DatasetSection,
    DetectorSection,
    EvaluationSection,
    Experiment,
    Probabilities,
    ResourcesSection,
    ScoringSection,
    Section,
    TrainingSection,
    Uncertainty,
    Weighting,
    refuse_unknown_options,
)
from raylearn.data.storage import scheme_of
from raylearn.detectors import family_named
from raylearn.handoff.exchange import ONLY_COPIES, Tool


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


class QuerySection(Section):
    """How the images of a round are chosen, and who gets them."""

    strategy: Literal["uncertainty", "random", "box_count"] = Field(
        "uncertainty", description="by uncertainty, or by one of the controls"
    )
    uncertainty: Uncertainty = Field("entropy", description="how uncertain one detection is")
    aggregation: Aggregation = Field("sum", description="how the detections of an image become its score")
    weighting: Weighting = Field("none", description="factor of a detection by its predicted class")
    weight_cap: float | None = Field(None, gt=0, description="upper limit of a class weight")
    probabilities: Probabilities = Field("background", description="how class scores are read as probabilities")
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
        fields = type(self).model_fields
        axes = ("uncertainty", "aggregation", "weighting", "probabilities", "weight_cap")
        given = next((name for name in axes if getattr(self, name) != fields[name].default), None)
        if self.strategy != "uncertainty" and given:
            raise ValueError(f"query.{given} has no meaning with query.strategy {self.strategy}: leave it out")
        if self.weight_cap is not None and self.weighting == "none":
            raise ValueError("query.weight_cap has no meaning without a query.weighting: leave it out, or give that")
        return self


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
        query = self.query
        axes = {name: [getattr(query, name)] for name in ("uncertainty", "aggregation", "weighting", "probabilities")}
        if query.strategy != "uncertainty":
            axes = {"uncertainty": []}
        controls = [] if query.strategy == "uncertainty" else [query.strategy]
        sections = ("detector", "training", "scoring", "evaluation", "resources")
        return Experiment.model_validate(
            {
                "name": self.name,
                "dataset": self.held_out.model_dump(),
                **{section: getattr(self, section).model_dump() for section in sections},
                "initial_size": query.size,
                "budget": query.size,
                "arms": {**axes, "weight_cap": query.weight_cap, "query_size": [query.size], "controls": controls},
                "seeds": [self.seed],
            }
        )
