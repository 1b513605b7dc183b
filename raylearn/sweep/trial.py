"""One trial: the cycle with real training, scoring and evaluation, each asked for as a job."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from raylearn.config import Experiment
from raylearn.data.dataset import Dataset
from raylearn.data.pool import Pool, SimulatedOracle, initial_set
from raylearn.detectors import family_named
from raylearn.detectors.base import DetectorSettings, TrainingSet
from raylearn.errors import DivergedError, QueryError
from raylearn.learning.cycle import Round, run_cycle
from raylearn.learning.evaluation import EvaluationJob
from raylearn.learning.scoring import ScoringJob
from raylearn.learning.selection import scored_subset
from raylearn.learning.training import InitialWeights, TrainingJob, with_resolved_model
from raylearn.measures.sampling import random_generator
from raylearn.scoring.ledger import Ledger
from raylearn.scoring.manifest import Manifest
from raylearn.strategies import Candidates, Context, Query, ask
from raylearn.sweep.grid import Arm, Trial, arms, num_rounds
from raylearn.work.jobs import Job
from raylearn.work.store import Artifact

TrialRound = Round[Artifact, Artifact | None, Artifact]


@dataclass(frozen=True)
class Bench:
    """What all trials of an experiment have in common."""

    experiment: Experiment
    dataset: Dataset
    initial_weights: InitialWeights | None

    @classmethod
    def of(cls, experiment: Experiment, dataset: Dataset) -> "Bench":
        """Checks that the budget can be paid from this pool; see `of_pool`.

        Raises:
            QueryError: the pool is smaller than initial set and budget, or a strategy has no meaning for it.
        """
        wanted = experiment.initial_size + experiment.budget
        if wanted > len(dataset.pool):
            raise QueryError(
                f"initial_size {experiment.initial_size} and budget {experiment.budget} ask for {wanted} images, but "
                f"the pool of {dataset.name!r} has {len(dataset.pool)}: lower budget"
            )
        return cls.of_pool(experiment, dataset)

    @classmethod
    def of_pool(cls, experiment: Experiment, dataset: Dataset) -> "Bench":
        """For a pool that is labelled as far as people come.

        Raises:
            QueryError: a strategy has no meaning for these classes, or needs what no scoring pass gives.
        """
        for arm in arms(experiment):
            arm.strategy.refuse_classes(dataset.num_classes)
            if arm.strategy.needs_embeddings and not family_named(experiment.detector.family).embeddings:
                raise QueryError(
                    f"strategy {arm.strategy.name} needs {arm.strategy.needs}, which detector family "
                    f"{experiment.detector.family} does not give: choose another of the two"
                )
        weights = experiment.detector.initial_weights
        resolved = with_resolved_model(experiment)
        return cls(resolved, dataset, InitialWeights.of(weights) if weights else None)

    @cached_property
    def _images_by_id(self) -> dict[str, int]:
        return {image.image_id: position for position, image in enumerate(self.dataset.pool)}

    def start_pool(self, trial: Trial) -> Pool:
        """The pool of round 0: the seed's initial set is labelled; for a strategy that never asks, everything."""
        oracle = SimulatedOracle(self.dataset.truth)
        if not trial.arm.strategy.asks:
            drawn = [image.image_id for image in self.dataset.pool]
        else:
            size = self.experiment.initial_size
            drawn = initial_set(self.dataset, size, random_generator(trial.seed, "initial set"))
        return Pool(self.dataset.pool, oracle.label(drawn))

    def training(self, pool: Pool, seed: int) -> TrainingJob:
        detector, training = self.experiment.detector, self.experiment.training
        return TrainingJob(
            model=detector.model,
            image_size=detector.image_size,
            arguments=training.arguments,
            initial_weights=self.initial_weights,
            seed=seed,
            train=TrainingSet(self.dataset.class_names, pool.labelled_images, pool.labelled),
            family=detector.family,
        )

    def evaluation(self, model: Artifact) -> EvaluationJob:
        section, detector = self.experiment.evaluation, self.experiment.detector
        test = self.dataset.test
        return EvaluationJob(
            training=model,
            model=detector.model,
            settings=DetectorSettings(detector.image_size, section.confidence, section.iou, section.max_detections),
            class_names=self.dataset.class_names,
            images=test,
            truth={image.image_id: self.dataset.truth[image.image_id] for image in test},
            fingerprint=self.dataset.fingerprint,
            family=detector.family,
        )

    def scoring(self, model: Artifact, pool: Pool, seed: int, round_index: int, embeddings: bool = False) -> ScoringJob:
        """The pass that a query is chosen from; with embeddings it is another pass."""
        section, detector = self.experiment.scoring, self.experiment.detector
        unlabelled = [image.image_id for image in pool.unlabelled_images]
        wanted = scored_subset(unlabelled, section.pool_size, seed, round_index)
        return ScoringJob(
            training=model,
            model=detector.model,
            settings=DetectorSettings(
                detector.image_size,
                section.confidence,
                section.iou,
                section.max_detections,
                embeddings=embeddings,
            ),
            manifest=Manifest.of(self.dataset.pool[self._images_by_id[image_id]] for image_id in wanted),
            batch_size=section.batch_size,
            family=detector.family,
        )

    def query(self, arm: Arm, ledger: Artifact | None, pool: Pool, seed: int) -> Query:
        """What an arm asks for next, of the images of a ledger or, for a strategy that needs none, of the pool."""
        assert arm.query_size is not None  # a strategy that never asks has one round
        context = Context(seed, pool.class_counts(self.dataset.num_classes))
        if ledger is None:
            unlabelled = [image.image_id for image in pool.unlabelled_images]
            candidates = Candidates.unseen(unlabelled, self.dataset.num_classes)
        else:
            found = Ledger.read(ledger.folder)
            candidates = Candidates(
                found.image_ids, found.offsets, found.class_scores, found.box_embeddings, found.image_embeddings
            )
        return ask(arm.strategy, candidates, arm.query_size, context)


def run_trial(trial: Trial, bench: Bench, make: Callable[[Job], Artifact]) -> Iterator[TrialRound]:
    """The rounds of one trial.

    Args:
        trial: which.
        bench: what it shares with the others.
        make: gives a job's artifact, from the store or by doing the work.

    Raises:
        DivergedError: names the trial and the round.
    """
    arm, seed = trial.arm, trial.seed
    done = -1
    try:
        for finished in run_cycle(
            bench.start_pool(trial),
            SimulatedOracle(bench.dataset.truth),
            num_rounds(bench.experiment, arm),
            train=lambda pool: make(bench.training(pool, seed)),
            evaluate=lambda model: make(bench.evaluation(model)),
            score=lambda model, pool, index: (
                make(bench.scoring(model, pool, seed, index, arm.strategy.needs_embeddings))
                if arm.strategy.needs_pass
                else None
            ),
            query=lambda ledger, pool: bench.query(arm, ledger, pool, seed),
        ):
            done = finished.index
            yield finished
    except DivergedError as error:
        raise DivergedError(f"trial {trial.name}, round {done + 1}: {error}") from error
