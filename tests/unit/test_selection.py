"""From a ledger to the images that are asked for."""

from pathlib import Path

import numpy as np
import pytest

from raylearn.config import Arm
from raylearn.errors import QueryError
from raylearn.learning.selection import image_scores, query_at_random, query_by_scores, scored_subset
from raylearn.scoring.manifest import Manifest
from tests.unit.hand_made import make_image, make_ledger

# b shows nothing, d could not be read
FOUND = {"c": [[0.5, 0.5]], "b": [], "a": [[0.9, 0.0], [0.2, 0.6]], "d": "cut off"}
ENTROPY = Arm("uncertainty", "entropy", "sum", "none", "conditional", 1)


def test_a_ledger_is_ordered_by_id_and_keeps_errors_apart(tmp_path: Path) -> None:
    ledger = make_ledger(FOUND, tmp_path)
    assert list(ledger.image_ids) == ["a", "b", "c"]
    assert list(ledger.offsets) == [0, 2, 2, 3]
    np.testing.assert_allclose(ledger.class_scores, [[0.9, 0.0], [0.2, 0.6], [0.5, 0.5]], atol=1e-6)
    assert ledger.errors == {"d": "cut off"}


def test_equal_content_gives_an_equal_ledger_file(tmp_path: Path) -> None:
    make_ledger(FOUND, tmp_path / "one")
    make_ledger(dict(reversed(FOUND.items())), tmp_path / "other")
    one, other = ((tmp_path / name / "ledger.parquet").read_bytes() for name in ("one", "other"))
    assert one == other


def test_entropies_of_an_image_are_summed_and_no_detection_is_zero(tmp_path: Path) -> None:
    scores = image_scores(ENTROPY, make_ledger(FOUND, tmp_path), np.array([1, 1]))
    quarter = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    np.testing.assert_allclose(scores, [quarter, 0, 1], atol=1e-6)


def test_a_detection_is_weighted_by_its_predicted_class_and_the_labelled_counts(tmp_path: Path) -> None:
    arm = Arm("uncertainty", "entropy", "sum", "inverse_frequency", "conditional", 1)
    ledger = make_ledger(FOUND, tmp_path)
    plain = image_scores(ENTROPY, ledger, np.array([7, 1]))
    weighted = image_scores(arm, ledger, np.array([7, 1]))  # weights 10/8 and 10/2
    np.testing.assert_allclose(weighted, plain * [5, 1, 1.25], atol=1e-6)
    capped = image_scores(arm, ledger, np.array([7, 1]), weight_cap=2)
    np.testing.assert_allclose(capped, plain * [2, 1, 1.25], atol=1e-6)


@pytest.mark.parametrize("aggregation", ["sum", "max", "mean"])
def test_equal_class_counts_leave_the_ranking_alone(tmp_path: Path, aggregation: str) -> None:
    ledger = make_ledger(FOUND, tmp_path)
    rankings = [
        query_by_scores(ledger.image_ids, image_scores(arm, ledger, np.array([4, 4])), 3, seed=0).image_ids
        for weighting in ("none", "inverse_frequency", "inverse_sqrt")
        for arm in [Arm("uncertainty", "entropy", aggregation, weighting, "conditional", 1)]  # type: ignore[arg-type]
    ]
    assert rankings[0] == rankings[1] == rankings[2]


def test_box_count_counts_boxes(tmp_path: Path) -> None:
    assert list(image_scores(Arm("box_count", query_size=1), make_ledger(FOUND, tmp_path), np.array([1, 1]))) == [
        2,
        0,
        1,
    ]


def test_chance_depends_on_seed_and_round_and_not_on_order() -> None:
    names = [f"{number}.jpg" for number in range(50)]
    drawn = query_at_random(names, 5, seed=1, round_index=1)
    assert query_at_random(names[::-1], 5, seed=1, round_index=1) == drawn
    assert query_at_random(names, 5, seed=2, round_index=1) != drawn
    assert query_at_random(names, 5, seed=1, round_index=2) != drawn


def test_the_scored_subset_is_a_random_part_or_all() -> None:
    names = [f"{number}.jpg" for number in range(50)]
    assert scored_subset(names, None, 0, 1) == names
    part = scored_subset(names, 10, 0, 1)
    assert len(set(part)) == 10
    assert set(scored_subset(names[::-1], 10, 0, 1)) == set(part)
    with pytest.raises(QueryError, match="lower budget"):
        scored_subset([], 10, 0, 1)


def test_a_manifest_is_its_ids_and_contents_and_not_its_places() -> None:
    images = [make_image(name) for name in ("b", "a")]
    assert Manifest.of(images).hash == Manifest.of([make_image(name, folder="/else") for name in ("a", "b")]).hash
    assert Manifest.of(images).hash != Manifest.of([make_image("a"), make_image("b", content="other")]).hash
    assert len(Manifest.of([])) == 0
