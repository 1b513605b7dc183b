"""One trial: the cycle with real training, scoring and evaluation, each asked for as a job."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from raylearn.config import Experiment
from raylearn.data.dataset import Dataset, GroundTruth, Image
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
from raylearn.strategies import Candidates, Context, Labelled, Query, Strategy, ask, ask_within
from raylearn.strategies.meaning import notes
from raylearn.strategies.reasons import reasons
from raylearn.sweep.grid import Arm, Trial, arms, num_rounds
from raylearn.work.jobs import Job
from raylearn.work.store import Artifact


@dataclass(frozen=True)
class Scored:
    """The scoring passes that a query is drawn from.

    Args:
        unlabelled: of the images that may be asked for.
        labelled: of those that are labelled, for a strategy that looks at both.
    """

    unlabelled: Artifact
    labelled: Artifact | None = None


TrialRound = Round[Artifact, Scored | None, Artifact]


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
        initial, budget = experiment.initial_size, experiment.budget_size
        if experiment.pays_boxes:
            there = sum(
                len(truth) for image in dataset.pool if (truth := dataset.truth.get(image.image_id)) is not None
            )
            if budget > there:
                raise QueryError(f"a budget of {budget} boxes, but the pool of {dataset.name!r} has {there}: lower it")
        elif initial + budget > len(dataset.pool):
            raise QueryError(
                f"initial_size {initial} and budget {budget} ask for {initial + budget} images, but "
                f"the pool of {dataset.name!r} has {len(dataset.pool)}: lower budget"
            )
        return cls.of_pool(experiment, dataset)

    @classmethod
    def of_pool(cls, experiment: Experiment, dataset: Dataset) -> "Bench":
        """For a pool that is labelled as far as people come.

        Raises:
            QueryError: a strategy has no meaning for these classes, needs what no scoring pass gives, or groups that
                the pool does not have.
        """
        for arm in arms(experiment):
            arm.strategy.refuse_classes(dataset.num_classes)
            if arm.strategy.max_per_group is not None and not any(image.clip_id for image in dataset.pool):
                raise QueryError(
                    f"{arm.strategy.label}: max_per_group needs groups, and the pool of {dataset.name!r} has none: "
                    "name them in a groups.csv beside the data set, or leave it out"
                )
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
            fingerprint=self.dataset.test_fingerprint,
            family=detector.family,
        )

    def scoring(self, model: Artifact, pool: Pool, seed: int, round_index: int, strategy: Strategy) -> ScoringJob:
        """The pass over the unlabelled images of a round."""
        unlabelled = [image.image_id for image in pool.unlabelled_images]
        wanted = scored_subset(unlabelled, self.experiment.scoring.pool_size, seed, round_index)
        return self._pass_over(model, (self.dataset.pool[self._images_by_id[name]] for name in wanted), strategy)

    def labelled_scoring(self, model: Artifact, pool: Pool, strategy: Strategy) -> ScoringJob:
        """The pass over the images that are labelled, which the model has learned from."""
        return self._pass_over(model, pool.labelled_images, strategy)

    def _pass_over(self, model: Artifact, images: Iterable[Image], strategy: Strategy) -> ScoringJob:
        section, detector = self.experiment.scoring, self.experiment.detector
        return ScoringJob(
            training=model,
            model=detector.model,
            settings=DetectorSettings(
                detector.image_size,
                section.confidence,
                section.iou,
                section.max_detections,
                embeddings=strategy.needs_embeddings,
            ),
            manifest=Manifest.of(images),
            batch_size=section.batch_size,
            family=detector.family,
        )

    def score(
        self, strategy: Strategy, model: Artifact, pool: Pool, seed: int, index: int, make: Callable[[Job], Artifact]
    ) -> Scored | None:
        """What a strategy has to know of the images before it is asked for round `index`; None for nothing."""
        if not strategy.needs_pass:
            return None
        unlabelled = make(self.scoring(model, pool, seed, index, strategy))
        labelled = make(self.labelled_scoring(model, pool, strategy)) if strategy.needs_labelled else None
        return Scored(unlabelled, labelled)

    def query(self, arm: Arm, scored: Scored | None, pool: Pool, seed: int, boxes: int | None = None) -> Query:
        """What an arm asks for next: of the images that were scored or, where none had to be, of the whole pool.

        Args:
            arm: who asks.
            scored: what `score` gave.
            pool: as it is labelled now.
            seed: of the trial.
            boxes: what may be paid in this round of a simulation, where the budget is in boxes; at least one image is
                asked for.
        """
        assert arm.query_size is not None  # a strategy that never asks has one round
        if scored is None:
            unlabelled = [image.image_id for image in pool.unlabelled_images]
            candidates = Candidates.unseen(unlabelled, self.dataset.num_classes)
        else:
            candidates = Ledger.read(scored.unlabelled.folder).candidates
        candidates = replace(candidates, groups=self.groups_of(candidates.image_ids))
        context = Context(
            seed,
            pool.class_counts(self.dataset.num_classes),
            self._labelled(scored.labelled, pool) if scored and scored.labelled else None,
            *self._withheld(arm.strategy, candidates, pool),
        )
        # beside trainings, BLAS threads that wait for each other make it ten times slower
        with threadpool_limits(1, "blas"):
            if boxes is None:
                chosen = ask(arm.strategy, candidates, arm.query_size, context)
            else:
                costs = self._true_counts(candidates.image_ids, self.dataset.truth).sum(axis=1)
                chosen = ask_within(arm.strategy, candidates, costs, boxes, context)
            return _explained(chosen, candidates, context) if scored else chosen

    def groups_of(self, image_ids: Sequence[str] | np.ndarray) -> np.ndarray | None:
        """The clip of each image; an image of none is a group of its own. None where no image has one."""
        if not any(image.clip_id for image in self.dataset.pool):
            return None
        images = (self.dataset.pool[self._images_by_id[image_id]] for image_id in image_ids)
        return np.array([f"clip {image.clip_id}" if image.clip_id else image.image_id for image in images], object)

    def _withheld(
        self, strategy: Strategy, candidates: Candidates, pool: Pool
    ) -> tuple[np.ndarray | None, dict[str, int]]:
        """What only a strategy of simulations may know: true boxes of each candidate, labelled images of each group."""
        if not strategy.simulation_only:
            return None, {}
        labelled = self.groups_of(list(pool.labelled))
        in_group = {} if labelled is None else dict(Counter(labelled.tolist()))
        return self._true_counts(candidates.image_ids, self.dataset.truth), in_group

    def _labelled(self, ledger: Artifact, pool: Pool) -> Labelled:
        seen = Ledger.read(ledger.folder).candidates
        return Labelled(seen, self._true_counts(seen.image_ids, pool.labelled))

    def _true_counts(self, image_ids: Sequence[str] | np.ndarray, truth: Mapping[str, GroundTruth]) -> np.ndarray:
        """(N, K) int64: ground-truth boxes of each class in each image."""
        num_classes = self.dataset.num_classes
        counts = [np.bincount(truth[image_id].class_ids, minlength=num_classes) for image_id in image_ids]
        return np.array(counts, dtype=np.int64).reshape(-1, num_classes)


def _explained(query: Query, candidates: Candidates, context: Context) -> Query:
    """With what is known of each image beside its score."""
    known = reasons(query.image_ids, candidates, context)
    position = {image_id: index for index, image_id in enumerate(candidates.image_ids)}
    lengths = np.diff(candidates.offsets)
    marks = notes([int(lengths[position[image_id]]) for image_id in query.image_ids], query.tie, query.scores)
    return replace(query, reasons=tuple(replace(one, note=mark) for one, mark in zip(known, marks, strict=True)))


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
    start, paid = bench.start_pool(trial), itertools.count(1)

    def query(scored: Scored | None, pool: Pool) -> Query:
        # What a round paid too much for its last image, the next has less: so rounds of all arms cost the same.
        due = start.num_boxes + next(paid) * (arm.query_size or 0) - pool.num_boxes
        return bench.query(arm, scored, pool, seed, max(1, due) if bench.experiment.pays_boxes else None)

    done = -1
    try:
        for finished in run_cycle(
            start,
            SimulatedOracle(bench.dataset.truth),
            num_rounds(bench.experiment, arm),
            train=lambda pool: make(bench.training(pool, seed)),
            evaluate=lambda model: make(bench.evaluation(model)),
            score=lambda model, pool, index: bench.score(arm.strategy, model, pool, seed, index, make),
            query=query,
        ):
            done = finished.index
            yield finished
    except DivergedError as error:
        raise DivergedError(f"trial {trial.name}, round {done + 1}: {error}") from error
