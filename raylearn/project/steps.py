"""The steps of a project, query, import and train: the simulation's cycle, each time as far as it comes."""

import itertools
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raylearn import __version__
from raylearn.config_files import dump_file
from raylearn.data.dataset import GroundTruth, Image
from raylearn.data.images import read_bytes
from raylearn.data.pool import Pool
from raylearn.data.storage import Folder
from raylearn.detectors import family_named
from raylearn.detectors.base import Detections
from raylearn.errors import ImageError, ProjectError
from raylearn.handoff.exchange import Record, Tool
from raylearn.handoff.export import export_query
from raylearn.handoff.labels import ImportedLabels, Missing, import_labels
from raylearn.handoff.query_files import write_query
from raylearn.learning.collectors import QueriedImage
from raylearn.learning.cycle import run_cycle
from raylearn.learning.ledger_query import detections_of
from raylearn.learning.training import BroughtCheckpoint, InitialWeights
from raylearn.project.folder import ProjectFolder
from raylearn.strategies import Query, Random, Reason
from raylearn.strategies.meaning import doubt_of_pool, doubts_of_query
from raylearn.sweep.gallery import write_gallery
from raylearn.sweep.grid import Arm, Trial
from raylearn.sweep.pool_map import write_map
from raylearn.sweep.results import dataset_facts, write_tables
from raylearn.sweep.run_folder import EXPERIMENT_FILE, GALLERY_FILE, MAP_FILE, RUN_FILE
from raylearn.sweep.trial import Bench, Scored, TrialRound
from raylearn.work.jobs import Job, NotMadeError, made_before
from raylearn.work.store import Artifact, DiskStore

Step = Literal["query", "import", "train"]
_READ_AT_ONCE = 8


class Annotators:
    """The oracle that people are: it gives out what they gave back, round after round.

    Args:
        rounds: labels of every query so far, in order; what was left unlabelled in one stays so.
    """

    def __init__(self, rounds: Iterable[Mapping[str, GroundTruth]]) -> None:
        self._rounds = iter(rounds)

    def label(self, image_ids: Iterable[str]) -> dict[str, GroundTruth]:
        """Raises ProjectError where the labels are of other images than were asked for."""
        labels = dict(next(self._rounds))
        strange = labels.keys() - set(image_ids)
        if strange:
            raise ProjectError(f"image {min(strange)!r} is labelled, and was not asked for in its round")
        return labels


@dataclass(frozen=True)
class Standing:
    """How far a project is.

    Args:
        rounds: that are trained and measured.
        pool: as it is labelled now.
        index: of the round that is asked for or labelled next.
        next: the step that is next; None where all is labelled and trained.
    """

    rounds: Sequence[TrialRound]
    pool: Pool
    index: int
    next: Step | None


def readable(pool: Pool) -> Pool:
    """The pool without the unlabelled images whose bytes cannot be read.

    Raises:
        ProjectError: none is left.
    """
    unlabelled = pool.unlabelled_images
    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        pairs = zip(unlabelled, threads.map(_can_be_read, unlabelled), strict=True)
        lost = {image.image_id for image, can_be_read in pairs if not can_be_read}
    left = Pool(tuple(image for image in pool.images if image.image_id not in lost), pool.labelled)
    if not left.unlabelled_images:
        raise ProjectError("no unlabelled image can be read: is the disk or address of the pool there?")
    return left


def _can_be_read(image: Image) -> bool:
    try:
        read_bytes(image.uri)
    except ImageError:
        return False
    return True


def doubts(query: Query, scored: Scored, found: Mapping[str, tuple[tuple[int, int], Detections]]) -> list[str]:
    """What the ranking of a query does not mean, in sentences; see raylearn.strategies.meaning."""
    passed, remedy = scored.unlabelled.facts, "scoring.confidence"
    pool = doubt_of_pool(passed.get("num_without_detections", 0), passed["num_images"], remedy)
    own = doubts_of_query([len(found[i][1].boxes) for i in query.image_ids], query.tie, query.scores, remedy)
    return [pool, *own] if pool else own


class Cycle:
    """A project's cycle, replayed from what people and machines have finished."""

    def __init__(self, folder: ProjectFolder) -> None:
        self.folder = folder
        self.store = DiskStore(folder.path / "store")
        experiment = folder.settings.experiment
        query = folder.settings.query
        self.trial = Trial(Arm(query.chosen, query.size), folder.settings.seed)
        self.bench = Bench.of_pool(experiment, folder.dataset)

    @cached_property
    def labels(self) -> list[Mapping[str, GroundTruth]]:
        return list(self.folder.labels())

    def standing(self, make: Callable[[Job], Artifact] | None = None) -> Standing:
        """Goes through all that is labelled, as far as it is trained.

        Args:
            make: makes what the store lacks; by default nothing is made.
        """
        images, index = self.bench.dataset.pool, len(self.labels)
        pool = Pool(images, {image_id: truth for labels in self.labels for image_id, truth in labels.items()})
        finished: list[TrialRound] = []
        step: Step | None = "import" if self.folder.handout(index).exists() else "query"
        try:
            if self.labels:
                for done in self._rounds(Pool(images, self.labels[0]), make or partial(made_before, self.store)):
                    finished.append(done)
        except NotMadeError:
            if step == "query":  # what is handed out can come back, though an upgrade asks for measurements anew
                step = "train"
        if step == "query" and not pool.unlabelled_images:
            step = None
        return Standing(finished, pool, index, step)

    def _rounds(self, start: Pool, make: Callable[[Job], Artifact]) -> Iterator[TrialRound]:
        """The rounds that are labelled. What was asked for in them is as it was handed out, and not asked again."""
        rounds, asked = itertools.count(), itertools.count(1)
        return run_cycle(
            start,
            Annotators(self.labels[1:]),
            len(self.labels),
            train=lambda pool: make(self._training(pool, next(rounds))),
            evaluate=lambda model: make(self.bench.evaluation(model)),
            score=self.scored,
            query=lambda _scored, _pool: self.folder.asked(next(asked)),
        )

    def _training(self, pool: Pool, index: int) -> Job:
        """The training of a round, or the checkpoint that was brought in its place.

        Raises:
            NotMadeError: the detector's family does not train, and none was brought.
        """
        brought = self.folder.checkpoint_file(index)
        if brought.exists():
            family = self.bench.experiment.detector.family
            return BroughtCheckpoint(InitialWeights.of(brought), family, len(pool.labelled))
        if self._no_training:
            raise NotMadeError
        return self.bench.training(pool, self.trial.seed)

    @property
    def _no_training(self) -> str:
        """Why checkpoints have to be brought, or ""."""
        return family_named(self.bench.experiment.detector.family).no_training

    def scored(self, model: Artifact, pool: Pool, index: int) -> Scored | None:
        """The scoring passes that a query was drawn from, if it needed any and they are still there."""
        try:
            strategy = self.trial.arm.strategy
            return self.bench.score(strategy, model, pool, self.trial.seed, index, partial(made_before, self.store))
        except NotMadeError:
            return None

    def fresh(self) -> Standing:
        """The standing after a step, with what it changed on the disk."""
        return Cycle(self.folder).standing()

    @contextmanager
    def making(self, kinds: Sequence[str], address: str | None) -> Iterator[Any]:
        """A `make` that does work of these kinds on Ray, which is started when the first is to be done."""
        from raylearn.cluster.session import ray_session
        from raylearn.work.resources import work_resources
        from raylearn.work.watching import watched
        from raylearn.work.workshop import ask_workshop, open_workshop

        address = address or os.environ.get("RAY_ADDRESS")
        workshop: Any = None

        def make(job: Job) -> Artifact:
            nonlocal workshop
            found = self.store.find(job.kind, job.key)
            if found:
                return found
            if job.kind not in kinds:
                raise NotMadeError
            if workshop is None:
                open_until_the_end.enter_context(ray_session(address))
                workshop = open_workshop(self.store, work_resources(self.bench.experiment, address))
                open_until_the_end.enter_context(watched(workshop))
            return ask_workshop(workshop, job, self.trial.name)[0]

        with ExitStack() as open_until_the_end:
            yield make

    def train(self, address: str | None, checkpoint: Path | None = None) -> Standing:
        """Trains on what is labelled, and measures; nothing where that was done.

        Args:
            address: of a Ray cluster.
            checkpoint: trained elsewhere on what is labelled, in place of a training here.

        Raises:
            ProjectError: nothing is labelled yet, the round is trained already, or the checkpoint does not fit.
        """
        if not self.labels:
            raise ProjectError(f"{self.folder.path}: nothing is labelled yet: {self.advice(self.standing())}")
        before, index = self.standing(), len(self.labels) - 1
        if checkpoint is not None:
            if before.next != "train" and not self.folder.checkpoint_file(index).exists():
                raise ProjectError(f"round {index} is trained already: {self.advice(before)}")
            self.folder.bring_checkpoint(index, checkpoint)
        elif self._no_training and before.next == "train":
            raise ProjectError(f"{self._no_training}; {self.advice(before)}")
        self.store.clear_unfinished()
        with self.making(("training", "evaluation"), address) as make:
            return self.standing(make)

    def query(
        self,
        address: str | None,
        leave_out_unreadable: bool = False,
        tell: Callable[[str], object] = lambda _doubt: None,
    ) -> tuple[Standing, Path]:
        """Hands out the images that are to be labelled next, or says where they were handed out.

        Args:
            address: of a Ray cluster, where images are to be scored.
            leave_out_unreadable: reads all unlabelled images first, and asks for none that cannot be read any more.
            tell: told what the ranking of the images does not mean, where there is something.

        Raises:
            ProjectError: the model of what is labelled is not trained yet.
        """
        before = self.standing()
        if before.next in ("train", None):
            raise ProjectError(f"{self.folder.path}: {self.advice(before)}")
        handout = self.folder.handout(before.index)
        if before.next == "query":
            self.store.clear_unfinished()
            if leave_out_unreadable:
                before = replace(before, pool=readable(before.pool))
            images, found = self._chosen(before, address, tell)
            write_query(images, self.folder.query_folder(before.index))
            section = self.folder.settings.query
            copies = None if section.images is None else section.images == "copy"
            names = self.bench.dataset.class_names
            export_query(images, found, names, section.format, handout, copies=copies, confidence=section.boxes_above)
        return self.standing(), handout

    def _chosen(
        self, standing: Standing, address: str | None, tell: Callable[[str], object]
    ) -> tuple[list[QueriedImage], Mapping[str, tuple[tuple[int, int], Detections]]]:
        """The images of the next query in order of rank, and what the detector saw in them."""
        seed, names = self.trial.seed, self.bench.dataset.class_names
        by_id = {image.image_id: image for image in self.bench.dataset.pool}
        size = min(self.folder.settings.query.size, len(standing.pool.unlabelled_images))  # the last one may be short
        scored: Scored | None = None
        if standing.rounds:
            model, strategy = standing.rounds[-1].model, self.trial.arm.strategy
            with self.making(("ledger",), address) as make:
                scored = self.bench.score(strategy, model, standing.pool, seed, standing.index, make)
        arm = self.trial.arm if standing.rounds else Arm(Random(), None)  # nothing can be known before round 0
        query = self.bench.query(replace(arm, query_size=size), scored, standing.pool, seed)
        nothing = Detections(np.empty((0, 4), np.float32), np.empty((0, len(names)), np.float32))
        found = {i: ((by_id[i].width, by_id[i].height), nothing) for i in query.image_ids}
        if scored:
            found = detections_of(scored.unlabelled.folder, query.image_ids)
            for doubt in doubts(query, scored, found):
                tell(doubt)
        known = query.reasons or (Reason(),) * size
        images = [
            replace(QueriedImage.of(rank, i, by_id[i].uri, score, found[i][1].class_ids, names), reason=reason)
            for rank, (i, score, reason) in enumerate(zip(query.image_ids, query.scores, known, strict=True), start=1)
        ]
        return images, found

    def take_in(self, path: Path, tool: Tool | None, missing: Missing) -> tuple[ImportedLabels, int]:
        """Takes the labels of the query that was handed out last.

        Returns:
            What came back, and of which round.

        Raises:
            ProjectError: nothing was handed out that waits for labels.
            LabelsError: the labels cannot be taken over; nothing of them is.
        """
        standing = self.standing()
        tool = tool or self.folder.settings.query.format
        if standing.next != "import":
            last = len(self.labels) - 1
            if last >= 0 and self.folder.handout(last).exists():
                again = import_labels(path, tool, Record.read(self.folder.handout(last)), missing)
                if again.truth == self.labels[last]:
                    return again, last
                raise ProjectError(
                    f"round {last} is labelled already, and otherwise: `raylearn project undo` takes that back; "
                    f"or {self.advice(standing)}"
                )
            raise ProjectError(f"nothing was handed out that waits for labels: {self.advice(standing)}")
        found = import_labels(path, tool, Record.read(self.folder.handout(standing.index)), missing)
        if not found.truth:
            raise ProjectError(f"{path} has no labels of any image that was handed out")
        self.folder.add_labels(standing.index, found, self.bench.dataset.class_names)
        return found, standing.index

    def advice(self, standing: Standing) -> str:
        """What to do next, as a command."""
        where = shlex.quote(str(self.folder.path))
        if standing.next is None:
            return f"every image of {where} is labelled, and the model is trained on all of them"
        if standing.next == "import":
            handout = self.folder.handout(standing.index)
            return f"label what is in {handout}, then `raylearn project import {where} EXPORT`"
        if standing.next == "train" and self._no_training:
            labels = self.folder.path / "labels"
            return f"train on what is in {labels}, then `raylearn project train {where} --checkpoint best.pt`"
        return f"next is `raylearn project {standing.next} {where}`"

    def write_results(self, standing: Standing) -> None:
        """The tables and settings of a run, so that `raylearn report` shows the project; none of no round."""
        files = Folder.at(self.folder.path)
        if not standing.rounds:
            for name in ("results.parquet", "queries.parquet", GALLERY_FILE, MAP_FILE, EXPERIMENT_FILE, RUN_FILE):
                files.remove(name)
            for name in ("report.html", "comparison.html", "summary.csv"):  # that `raylearn report` made of them
                files.remove(name)
            return
        dataset = self.bench.dataset
        facts = {"name": self.folder.settings.name, "raylearn": __version__, "dataset": dataset_facts(dataset)}
        write_tables({self.trial: standing.rounds}, dataset.num_classes, self.folder.path)
        write_gallery({self.trial: standing.rounds}, self.bench, self.folder.path / GALLERY_FILE)
        write_map({self.trial: standing.rounds}, self.folder.path / MAP_FILE)
        files.replace(EXPERIMENT_FILE, dump_file(self.bench.experiment).encode())
        files.replace(RUN_FILE, json.dumps(facts, indent=1).encode())
