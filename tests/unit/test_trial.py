"""One trial from first to last round, with results written by hand where a detector would make them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylearn.config import Experiment
from raylearn.data.dataset import Dataset
from raylearn.data.pool import Pool
from raylearn.data.storage import Folder
from raylearn.errors import DivergedError, QueryError
from raylearn.learning.scoring import ScoringJob
from raylearn.learning.training import TrainingJob
from raylearn.strategies import BoxCount, Context, FullData, Random, ScoredImages, Uncertainty
from raylearn.sweep.grid import Arm, Trial, arms, num_rounds, trials
from raylearn.sweep.trial import Bench, Scored, TrialRound, run_trial
from raylearn.work.jobs import Job
from raylearn.work.store import Artifact, DiskStore
from tests.unit.hand_made import make_dataset, make_image, make_ledger, make_truth, write_ledger

CONTENT: dict[str, Any] = {
    "name": "hand-made",
    "dataset": {"format": "yolo", "path": "unused"},
    "initial_size": 3,
    "budget": 4,
    "arms": {
        "query_size": [2],
        "controls": ["random", "box_count", "full_data"],
        "weighting": ["none", "inverse_sqrt"],
    },
    "seeds": [0, 1],
}
EXPERIMENT = Experiment.model_validate(CONTENT)
DATASET = make_dataset({f"{number:02d}.jpg": [number % 3] for number in range(12)})
BENCH = Bench.of(EXPERIMENT, DATASET)


class HandMaker:
    """Answers every job from a real store; a scored image shows as many equal detections as its number says."""

    def __init__(self, root: Path) -> None:
        self.store = DiskStore(root)
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> Artifact:
        self.jobs.append(job)

        def make(folder: Folder) -> Mapping[str, Any]:
            if isinstance(job, ScoringJob):
                names = job.manifest.table["image_id"].to_pylist()
                scores = {name: [[0.5, 0.2, 0.1]] * int(name[:2]) for name in names}
                write_ledger(scores, folder.path, num_classes=3, embeddings=job.settings.embeddings)
            facts = {"map50": 0.5, "map50_95": 0.3, "class_ap": [0.1, 0.2, None], "seconds": 1.0, "made_by": "hand"}
            return {**facts, "num_images": len(job.train.images)} if isinstance(job, TrainingJob) else facts

        return self.store.find(job.kind, job.key) or self.store.add(job.kind, job.key, make)


def _run(trial: Trial, tmp_path: Path, bench: Bench = BENCH) -> tuple[list[TrialRound], list[Job]]:
    maker = HandMaker(tmp_path)
    return list(run_trial(trial, bench, maker)), maker.jobs


@pytest.mark.parametrize("trial", trials(EXPERIMENT), ids=lambda trial: trial.name)
def test_the_labelled_set_grows_by_the_query_until_the_budget_is_spent(trial: Trial, tmp_path: Path) -> None:
    rounds, jobs = _run(trial, tmp_path)
    assert len(rounds) == num_rounds(EXPERIMENT, trial.arm)
    sizes = [len(finished.pool.labelled) for finished in rounds]
    assert sizes == ([12] if trial.arm.strategy == FullData() else [3, 5, 7])
    scored = [job for job in jobs if job.kind == "ledger"]
    assert len(scored) == (2 if trial.arm.strategy.needs_pass else 0)


def test_a_query_takes_the_images_of_the_highest_scores(tmp_path: Path) -> None:
    rounds, _ = _run(Trial(Arm(BoxCount(), 2), 0), tmp_path)
    start = set(rounds[0].pool.labelled)
    waiting = sorted((image.image_id for image in DATASET.pool if image.image_id not in start), reverse=True)
    assert rounds[1].query is not None
    assert list(rounds[1].query.image_ids) == waiting[:2]
    assert rounds[1].query.scores == tuple(float(name[:2]) for name in waiting[:2])


def test_scoring_sees_the_unlabelled_pool_and_never_the_test_split(tmp_path: Path) -> None:
    rounds, jobs = _run(Trial(Arm(BoxCount(), 2), 0), tmp_path)
    scored = [set(job.manifest.table["image_id"].to_pylist()) for job in jobs if isinstance(job, ScoringJob)]
    everything = {image.image_id for image in DATASET.pool}
    assert scored == [everything - rounds[0].pool.labelled.keys(), everything - rounds[1].pool.labelled.keys()]


def test_class_weights_come_from_the_labelled_boxes_and_not_from_the_pool(tmp_path: Path) -> None:
    # both images are as uncertain; the class that was labelled counts less than the one that was not
    dataset = make_dataset({"crabs.jpg": [0] * 9, "fishes.jpg": [1] * 9, "crab.jpg": [0], "fish.jpg": [1]})
    content = {**CONTENT, "initial_size": 1, "budget": 2}
    bench = Bench.of(Experiment.model_validate(content), dataset)
    make_ledger({"crab.jpg": [[0.6, 0, 0]], "fish.jpg": [[0, 0.6, 0]]}, tmp_path, num_classes=3)
    arm = Arm(Uncertainty("entropy", "sum", "inverse_frequency", "background"), 1)
    for shown, asked in (("crabs.jpg", "fish.jpg"), ("fishes.jpg", "crab.jpg")):
        pool = Pool(dataset.pool, {shown: dataset.truth[shown]})
        query = bench.query(arm, Scored(Artifact("ledger", Folder.at(tmp_path), {})), pool, 0)
        assert query.image_ids == (asked,)


def test_every_arm_of_a_seed_shares_the_first_training_and_another_seed_has_its_own() -> None:
    def first_keys(seed: int) -> set[str]:
        cells = [Trial(arm, seed) for arm in arms(EXPERIMENT) if arm.strategy != FullData()]
        return {BENCH.training(BENCH.start_pool(trial), seed).key for trial in cells}

    assert len(first_keys(0)) == len(first_keys(1)) == 1
    assert first_keys(0) != first_keys(1)


def _training(dataset: Dataset, **changes: Any) -> TrainingJob:
    experiment = Experiment.model_validate({**CONTENT, **changes})
    bench = Bench.of(experiment, dataset)
    return bench.training(bench.start_pool(Trial(Arm(Random(), 2), 0)), seed=0)


def test_where_files_lie_and_what_resources_there_are_do_not_decide_a_training() -> None:
    moved = replace(DATASET, pool=tuple(make_image(image.image_id, folder="/elsewhere") for image in DATASET.pool))
    assert _training(moved).key == _training(DATASET).key
    assert _training(DATASET, resources={"training_cpus": 4}, name="other").key == _training(DATASET).key


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"epochs": 7}},
        {"training": {"options": {"lr0": 0.5}}},
        {"detector": {"image_size": 320}},
        {"detector": {"model": "yolov8n"}},
        {"initial_size": 4},
    ],
)
def test_what_can_change_a_training_changes_its_key(changes: dict[str, Any]) -> None:
    assert _training(DATASET, **changes).key != _training(DATASET).key


def test_seeds_do_not_share_the_training_on_all_data() -> None:
    trial = Trial(Arm(FullData(), None), 0)
    pool = BENCH.start_pool(trial)
    assert BENCH.training(pool, 0).key != BENCH.training(pool, 1).key


class Seeing(BoxCount):
    """Asks for the images with the largest embedding."""

    name = "seeing"
    needs = "embeddings"

    def image_scores(self, images: ScoredImages, context: Context) -> np.ndarray:  # noqa: ARG002
        assert images.box_embeddings is not None
        assert images.image_embeddings is not None
        return images.image_embeddings[:, 0].astype(float)


def test_an_arm_that_needs_embeddings_scores_with_them_and_the_others_share_their_own_pass(tmp_path: Path) -> None:
    rounds, jobs = _run(Trial(Arm(Seeing(), 2), 0), tmp_path)
    seeing = [job for job in jobs if isinstance(job, ScoringJob)]
    plain = [job for job in _run(Trial(Arm(BoxCount(), 2), 0), tmp_path)[1] if isinstance(job, ScoringJob)]
    assert {job.settings.embeddings for job in seeing} == {True}
    assert {job.settings.embeddings for job in plain} == {False}
    assert not {job.key for job in seeing} & {job.key for job in plain}
    # the embedding of an image by hand grows with its boxes, and those with its number
    first, second = (finished.pool for finished in rounds[:2])
    waiting = sorted(image.image_id for image in first.unlabelled_images)
    assert {image.image_id for image in second.labelled_images} - set(first.labelled) == set(waiting[-2:])


def test_an_arm_whose_family_gives_no_embeddings_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylearn.sweep.trial.arms", lambda _: [Arm(Seeing(), 2)])
    Bench.of_pool(EXPERIMENT, DATASET)
    detector = {"family": "transformers", "model": "rt_detr"}
    with pytest.raises(QueryError, match="strategy seeing needs embeddings, which detector family transformers"):
        Bench.of_pool(Experiment.model_validate({**CONTENT, "detector": detector}), DATASET)


@pytest.mark.parametrize("section", ["scoring", "evaluation"])
def test_settings_of_a_prediction_decide_its_key_and_places_do_not(section: str) -> None:
    other = Bench.of(Experiment.model_validate({**CONTENT, section: {"iou": 0.5}}), DATASET)
    pool = BENCH.start_pool(Trial(Arm(Random(), 2), 0))

    def key(bench: Bench, folder: str, pool: Pool = pool) -> str:
        model = Artifact("trained", Folder(folder), {})
        return (
            bench.scoring(model, pool, 0, 1, Uncertainty()) if section == "scoring" else bench.evaluation(model)
        ).key

    assert key(BENCH, "/here") == key(BENCH, "/there")
    assert key(BENCH, "/here") != key(other, "/here")
    if section == "scoring":
        waiting = pool.unlabelled_images[0].image_id
        assert key(BENCH, "/here") != key(BENCH, "/here", pool.label({waiting: DATASET.truth[waiting]}))


def test_one_dropped_pool_image_repeats_no_evaluation() -> None:
    smaller = replace(DATASET, pool=DATASET.pool[:-1])
    model = Artifact("trained", Folder(""), {})
    fewer = Bench.of(EXPERIMENT, smaller).evaluation(model)
    assert smaller.fingerprint != DATASET.fingerprint
    assert fewer.key == BENCH.evaluation(model).key


@pytest.mark.parametrize(
    "changes",
    [
        {"test": (make_image("test/0.jpg", content="edited"),)},
        {"test": (*DATASET.test, DATASET.pool[-1]), "pool": DATASET.pool[:-1]},
        {"truth": {**DATASET.truth, "test/0.jpg": make_truth(1)}},
        {"class_names": ("fish", "crab", "squid")},
    ],
    ids=["an edited image", "one image more", "another label", "another order of classes"],
)
def test_another_held_out_split_is_another_evaluation(changes: dict[str, Any]) -> None:
    model = Artifact("trained", Folder(""), {})
    assert Bench.of(EXPERIMENT, replace(DATASET, **changes)).evaluation(model).key != BENCH.evaluation(model).key


def test_a_moved_box_changes_the_key_of_a_training() -> None:
    labelled = next(iter(_training(DATASET).train.truth))
    truth = DATASET.truth[labelled]
    moved = replace(truth, boxes=truth.boxes + np.float32(1))
    assert _training(replace(DATASET, truth={**DATASET.truth, labelled: moved})).key != _training(DATASET).key


def test_a_diverged_training_names_its_trial_and_round(tmp_path: Path) -> None:
    maker = HandMaker(tmp_path)

    def make(job: Job) -> Artifact:
        if isinstance(job, TrainingJob) and len(job.train.images) == 5:
            raise DivergedError("loss is NaN")
        return maker(job)

    trial = Trial(Arm(Random(), 2), 1)
    with pytest.raises(DivergedError, match=r"trial random-q2-s1, round 1: loss is NaN"):
        list(run_trial(trial, BENCH, make))


def test_a_budget_larger_than_the_pool_is_refused_before_any_work() -> None:
    with pytest.raises(QueryError, match=r"ask for 13 images, but the pool of 'hand-made' has 12: lower budget"):
        Bench.of(Experiment.model_validate({**CONTENT, "budget": 10}), DATASET)


def test_a_budget_in_boxes_is_paid_round_by_round_and_what_was_paid_too_much_is_not_paid_twice(tmp_path: Path) -> None:
    dataset = make_dataset({f"{number:02d}.jpg": [0] * (1 + number % 3) for number in range(30)})
    content = {**CONTENT, "budget": {"boxes": 24}, "arms": {"query_size": [8], "controls": ["random"]}}
    bench = Bench.of(Experiment.model_validate(content), dataset)
    for seed in range(8):
        rounds = list(run_trial(Trial(Arm(Random(), 8), seed), bench, HandMaker(tmp_path / str(seed))))
        paid = [done.pool.num_boxes - rounds[0].pool.num_boxes for done in rounds]
        assert len(rounds) == 4
        assert all(8 * index <= boxes <= 8 * index + 2 for index, boxes in enumerate(paid))


def test_a_budget_of_more_boxes_than_there_are_is_refused_before_any_work() -> None:
    with pytest.raises(QueryError, match=r"a budget of 14 boxes, but the pool of 'hand-made' has 12: lower it"):
        Bench.of(Experiment.model_validate({**CONTENT, "budget": {"boxes": 14}}), DATASET)


def test_a_limit_per_group_without_groups_is_refused_before_any_work() -> None:
    limited = {"query_size": [2], "strategies": [{"name": "uncertainty", "max_per_group": 1}]}
    experiment = Experiment.model_validate({**CONTENT, "arms": limited})
    with pytest.raises(QueryError, match="the pool of 'hand-made' has none: name them"):
        Bench.of(experiment, DATASET)
    clips = tuple(replace(image, clip_id=image.image_id[0]) for image in DATASET.pool)
    assert Bench.of(experiment, replace(DATASET, pool=clips))


def test_conditional_probabilities_of_one_class_are_refused() -> None:
    content = {**CONTENT, "arms": {**CONTENT["arms"], "probabilities": ["conditional"]}}
    one = make_dataset({f"{number:02d}.jpg": [0] for number in range(12)}, class_names=("fish",))
    with pytest.raises(QueryError, match="use `background`"):
        Bench.of(Experiment.model_validate(content), one)


def test_names_of_trials_are_unique_and_fit_for_files() -> None:
    names = [trial.name for trial in trials(EXPERIMENT)]
    assert len(set(names)) == len(names) == 2 * (3 + 2)
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)


def test_controls_are_there_for_every_query_size_and_full_data_once() -> None:
    content = {**CONTENT, "arms": {**CONTENT["arms"], "query_size": [1, 2, 4]}}
    strategies = [arm.strategy.name for arm in arms(Experiment.model_validate(content))]
    assert strategies.count("random") == strategies.count("box_count") == 3
    assert strategies.count("full_data") == 1
    assert strategies.count("uncertainty") == 2 * 3
