"""Strategies that weigh images against each other: their formulas by hand, and what holds for any images."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylearn.errors import QueryError
from raylearn.measures import greedy
from raylearn.measures.sampling import top_n
from raylearn.strategies import (
    Candidates,
    Context,
    CoreSet,
    Coverage,
    Diverse,
    Labelled,
    Oracle,
    Ppal,
    Uncertainty,
    make_strategy,
)
from tests.unit.scored_pools import CLASSES, random_context, random_pool, reordered, seen

CHOICES = [
    *(Diverse(), Diverse("margin", "max", beta=1.5, score_power=0.5, distance_power=2), Diverse(beta=3, score_power=0)),
    Diverse(aggregation="mean", alpha=1),
    *(
        Coverage(),
        Coverage("margin", "independent", alpha=0.5, box_cost=3.0),
        Oracle(),
        CoreSet(),
        Ppal(),
        Ppal(delta=1.5),
    ),
]
NOTHING_LABELLED = Context(0, np.zeros(2, int))
PLAIN = Uncertainty("least_confidence")  # (.5, 0) is .5 uncertain, (.75, 0) and (.25, 0) .25, (1, 0) not at all
EAST, NORTH, WEST = (2.0, 0.0), (0.0, 1.0), (-0.5, 0.0)
UNSURE, SURER, SURE = (0.5, 0.0), (0.75, 0.0), (1.0, 0.0)

seeds = st.integers(0, 2**32)
every_strategy = pytest.mark.parametrize("strategy", CHOICES, ids=lambda strategy: "-".join(strategy.words))


def labelled_boxes(*embeddings, true_counts=None) -> Context:
    return replace(NOTHING_LABELLED, labelled=Labelled(seen([[(SURE, e) for e in embeddings]]), true_counts))


@every_strategy
@given(seed=seeds, data=st.data())
def test_the_order_of_the_candidates_changes_no_query(strategy, seed, data):
    rng = np.random.default_rng(seed)
    candidates = random_pool(rng, int(rng.integers(1, 12)))
    count = len(candidates.image_ids)
    size = data.draw(st.integers(1, count))
    context = random_context(rng, count)
    first = strategy.select(candidates, size, context)
    other = strategy.select(*reorder(candidates, size, context, rng.permutation(count)))
    assert first == other
    assert len(set(first.image_ids)) == size
    assert np.isfinite(first.scores).all()
    assert list(first.scores) == sorted(first.scores, reverse=True)


def reorder(candidates, size, context, order):
    moved, moved_context = reordered(candidates, context, order)
    return moved, size, moved_context


@every_strategy
@given(seed=seeds)
def test_the_order_of_the_classes_changes_no_query(strategy, seed):
    rng = np.random.default_rng(seed)
    candidates, context = untied(rng, random_pool(rng, 8)), random_context(rng, 8)
    if context.labelled:
        known = context.labelled
        context = replace(context, labelled=replace(known, seen=untied(rng, known.seen)))
    other = of_classes(rng.permutation(CLASSES), candidates, context)
    assert strategy.select(candidates, 5, context).image_ids == strategy.select(other[0], 5, other[1]).image_ids


def untied(rng, images):
    """Of equal scores the first class is the predicted one: here none are equal."""
    return replace(images, class_scores=rng.random(images.class_scores.shape).astype(np.float32))


def of_classes(order, candidates, context):
    known = context.labelled
    if known is not None:
        known = Labelled(
            replace(known.seen, class_scores=known.seen.class_scores[:, order]),
            None if known.true_counts is None else known.true_counts[:, order],
        )
    return (
        replace(candidates, class_scores=candidates.class_scores[:, order]),
        Context(context.seed, context.class_counts[order], known, context.true_counts[:, order]),
    )


# diverse


def test_diverse_by_hand():
    images = seen([[(UNSURE, NORTH)], [(UNSURE, EAST)], [(SURER, WEST)], [(SURER, NORTH), (SURER, WEST)]])
    query = Diverse("least_confidence", "sum", "none").select(images, 4, labelled_boxes(EAST))
    # d: .5 x mean(.707, 1); then nothing is new: by score, and of a and b by the hash
    tied = top_n(["a", "b"], np.zeros(2), 2, 0)
    assert query.image_ids == ("d", *("ab"[i] for i in tied), "c")
    assert query.scores == (pytest.approx(0.5 * (0.707 + 1) / 2), 0.0, 0.0, 0.0)


@given(seeds, st.booleans(), st.sampled_from([0, 1]))
def test_diverse_picks_are_those_of_a_plain_loop(seed, lazily, score_power):
    rng = np.random.default_rng(seed)
    candidates, context = random_pool(rng, 9), random_context(rng, 9)
    labelled = context.labelled.seen if context.labelled else candidates.take(np.empty(0, int))
    with pytest.MonkeyPatch.context() as patch:
        if lazily:
            patch.setattr(greedy, "_num_active", lambda _: 2)
        query = Diverse(beta=9, score_power=score_power).select(candidates, 7, context)
    scores = Uncertainty(aggregation="mean", weighting="inverse_frequency").image_scores(candidates, context)
    order = top_n(candidates.image_ids, scores, 9, context.seed)
    boxes, images = list(directions(labelled.box_embeddings)), list(directions(labelled.image_embeddings))
    expected: list[str] = []
    for _ in range(7):
        products = {}
        for i in order:
            own = directions(boxes_of(candidates, i))
            apart = [nearest(box, boxes) for box in own] or [
                nearest(directions(candidates.image_embeddings)[i], images)
            ]
            products[candidates.image_ids[i]] = scores[i] ** score_power * np.mean(apart)
        left = {name: product for name, product in products.items() if name not in expected}
        expected.append(max(left, key=left.__getitem__))
        i = candidates.image_ids.index(expected[-1])
        boxes += list(directions(boxes_of(candidates, i)))
        images.append(directions(candidates.image_embeddings)[i])
    assert query.image_ids == tuple(expected)


def boxes_of(images, i):
    return images.box_embeddings[images.offsets[i] : images.offsets[i + 1]]


def directions(embeddings):
    lengths = np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
    return embeddings / np.where(lengths > 0, lengths, 1)


def nearest(vector, others):
    return round(min([1.0, *(np.linalg.norm(vector - other) / 2 for other in others)]), 3)


def test_powers_of_score_and_distance():
    images = seen([[(UNSURE, NORTH)], [(SURER, WEST)]])
    context = labelled_boxes(EAST)
    assert Diverse("least_confidence", weighting="none").select(images, 1, context).scores == (
        pytest.approx(0.5 * 0.707),
    )
    far = Diverse("least_confidence", weighting="none", score_power=0.5, distance_power=4)
    assert far.select(images, 1, context).image_ids == ("b",)  # .25^.5 x 1 against .5^.5 x .707^4
    assert far.select(images, 1, context).scores == (0.5,)


def test_alpha_divides_the_worth_of_an_image_by_its_expected_boxes():
    images = seen([[(UNSURE, NORTH)] * 3, [(UNSURE, NORTH)], []], of_images=[WEST, WEST, WEST])
    free = Diverse("least_confidence", "mean", "none", beta=3).select(images, 3, labelled_boxes(EAST))
    assert set(free.image_ids[:2]) == {"a", "b"}
    paid = Diverse("least_confidence", "mean", "none", beta=3, alpha=1).select(images, 3, labelled_boxes(EAST))
    assert paid.image_ids == ("b", "a", "c")
    confidence = images.class_scores[0].max()  # nobody knows true boxes, so the detector's own are expected
    assert paid.scores[0] == pytest.approx(0.5 * 0.707 / (1 + confidence), rel=1e-3)


def test_an_image_without_boxes_is_compared_as_a_whole():
    images = seen([[], [], [(UNSURE, EAST)]], of_images=[EAST, NORTH, WEST])
    context = replace(NOTHING_LABELLED, labelled=Labelled(seen([[(SURE, EAST)]], of_images=[EAST]), None))
    query = Diverse(score_power=0).select(images, 2, context)
    assert query.image_ids[0] == "b"
    assert query.scores == (0.707, 0.0)
    # chosen images count too, with boxes or without: west is opposite to east, and then the nearest is north
    chosen_first = Diverse("least_confidence", weighting="none", score_power=1e-9).select(images, 1, NOTHING_LABELLED)
    assert chosen_first.image_ids == ("c",)


def test_where_nothing_is_labelled_the_first_is_the_highest_score():
    images = seen([[(SURER, NORTH)], [(UNSURE, NORTH)], [(SURER, EAST)]])
    query = Diverse("least_confidence", "sum", "none").select(images, 3, NOTHING_LABELLED)
    assert query.image_ids == ("b", "c", "a")
    assert query.scores == (0.5, pytest.approx(0.25 * 0.707), 0.0)


def test_only_the_shortlist_is_looked_at():
    images = seen([[(UNSURE, EAST)], [(UNSURE, EAST)], [(SURER, WEST)]])
    context = labelled_boxes(EAST)
    assert Diverse("least_confidence", weighting="none", beta=2).select(images, 1, context).scores == (0.0,)
    assert Diverse("least_confidence", weighting="none", beta=3).select(images, 1, context).image_ids == ("c",)


@given(seeds, st.booleans())
def test_with_equal_embeddings_diverse_is_the_plain_ranking(seed, labelled):
    rng = np.random.default_rng(seed)
    candidates = random_pool(rng, 9)
    embedding = rng.normal(size=3)
    same = np.tile(embedding, (len(candidates.class_scores), 1)).astype(np.float16)
    candidates = replace(candidates, box_embeddings=same, image_embeddings=np.ones((9, 4), np.float16))
    context = Context(3, np.zeros(CLASSES))
    if labelled:
        context = replace(context, labelled=Labelled(candidates.take(np.array([0, 1])), None))
    size = int(rng.integers(1, 10))
    assert (
        Diverse().select(candidates, size, context).image_ids
        == Uncertainty(aggregation="mean", weighting="inverse_frequency").select(candidates, size, context).image_ids
    )


@given(seeds)
def test_a_duplicate_is_never_second_while_another_image_is_worth_something(seed):
    rng = np.random.default_rng(seed)
    candidates = random_pool(rng, 7)
    candidates = replace(candidates, box_embeddings=rng.normal(size=(len(candidates.class_scores), 16)).astype("f2"))
    doubled = candidates.take(np.repeat(np.arange(7), 2))
    doubled = replace(doubled, image_ids=[f"{i}/{twin}" for i in range(7) for twin in "ab"])
    query = Diverse().select(doubled, 14, Context(seed, np.zeros(CLASSES)))
    worth = [name.split("/")[0] for name, score in zip(query.image_ids, query.scores, strict=True) if score > 0]
    assert len(set(worth)) == len(worth)


def test_the_same_box_from_another_batch_is_no_other_box():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(200, 64)).astype(np.float16)
    shaken = np.nextafter(
        embeddings, np.where(rng.random(embeddings.shape) < 0.1, np.inf, embeddings), dtype=np.float16
    )
    assert (shaken != embeddings).any(axis=1).all()
    first = seen([[(UNSURE, e)] for e in embeddings[:20]])
    context = replace(NOTHING_LABELLED, labelled=Labelled(seen([[(SURE, e) for e in shaken]]), None))
    assert set(Diverse().select(first, 20, context).scores) == {0.0}


# coverage


def test_coverage_by_hand():
    # classes 0 and 1; 3 boxes of class 0 are labelled, none of class 1; east is labelled
    images = seen([[(UNSURE, WEST), (SURER, NORTH)], [((0.0, 0.5), WEST)], [(UNSURE, EAST)], []])
    context = replace(labelled_boxes(EAST), class_counts=np.array([3, 0]))
    query = Coverage("least_confidence", alpha=0).select(images, 2, context)
    of_class_0 = 0.5 * 1 + 0.25 * 0.707
    assert query.image_ids == ("b", "a")
    assert query.scores == (pytest.approx(np.log(1.5)), pytest.approx(np.log1p(of_class_0 / 4)))
    # a second image of class 1 adds log(2) - log(1.5)
    twice = seen([[((0.0, 0.5), WEST)], [((0.0, 0.5), WEST)]])
    scores = Coverage("least_confidence", alpha=0).select(twice, 2, context).scores
    assert scores == (pytest.approx(np.log(1.5)), pytest.approx(np.log(2 / 1.5)))


def test_coverage_per_cost_by_hand():
    images = seen([[(UNSURE, WEST)] * 3, [(UNSURE, WEST)]])
    # nobody knows true boxes: the sums of the confidences, 1.5 and .5
    dear = Coverage("least_confidence", alpha=1, image_cost=0.5, box_cost=2.0)
    query = dear.select(images, 2, NOTHING_LABELLED)
    assert query.image_ids == ("b", "a")
    assert query.scores == (pytest.approx(np.log(1.5) / 1.5), pytest.approx(np.log(3 / 1.5) / 3.5))


@given(seeds)
def test_alpha_0_ignores_boxes(seed):
    rng = np.random.default_rng(seed)
    candidates, context = random_pool(rng, 8), random_context(rng, 8)
    for strategy in (Coverage, Oracle):
        free = strategy(alpha=0).select(candidates, 8, context)
        assert free == strategy(alpha=0, image_cost=9.0, box_cost=5.0).select(candidates, 8, context)


def test_novelty_is_exact_up_to_512_labelled_boxes_and_too_high_by_a_bound_beyond():
    rng = np.random.default_rng(0)
    labelled = rng.normal(size=(700, 4))
    candidates = seen([[(UNSURE, e)] for e in rng.normal(size=(20, 4))])
    strategy = Coverage("least_confidence")

    def masses(count):
        return strategy.summaries(candidates, labelled_boxes(*labelled[:count]))[:, 0]

    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    boxes = candidates.box_embeddings.astype(float)
    for count in (1, 512, 700):
        apart = unit(boxes)[:, None] - unit(labelled[:count].astype(np.float16).astype(float))
        exact = 0.5 * np.linalg.norm(apart, axis=2).min(axis=1) / 2
        if count == 700:
            assert (masses(count) >= exact - 1e-3).all()
            assert (masses(count) <= exact + 0.06).all()
        else:
            assert masses(count) == pytest.approx(exact, abs=3e-4)


def test_clusters_tell_kinds_of_a_class_apart():
    # 4 boxes of class 0 are labelled: of its 4 detections three are in the east, one in the west; none of class 1
    labelled = seen([[(SURE, EAST)] * 3 + [(SURE, WEST)]])
    context = Context(0, np.array([4, 2]), Labelled(labelled, None))
    strategy = Coverage("least_confidence", alpha=0, clusters=2)
    assert sorted(strategy._covered(context)[:2]) == [1, 3]
    assert strategy._covered(context)[2:].tolist() == [1, 1]
    images = seen([[(UNSURE, (1.0, 1.0))], [(UNSURE, (-1.0, 1.0))]])
    masses = strategy.summaries(images, context)[:, :2]
    assert np.count_nonzero(masses, axis=1).tolist() == [1, 1]
    assert (masses[0] > 0).tolist() == (masses[1] == 0).tolist()
    # as new and as unsure, but the west is covered less
    assert strategy.select(images, 1, context).image_ids == ("b",)


def test_clusters_need_labelled_boxes():
    rng = np.random.default_rng(0)
    candidates = random_pool(rng, 6)
    for labelled in (None, Labelled(random_pool(rng, 3, "labelled").take(np.empty(0, int)), None)):
        context = Context(0, np.zeros(CLASSES, int), labelled)
        assert Coverage(clusters=4).select(candidates, 4, context) == Coverage().select(candidates, 4, context)


def test_parts_of_a_pool_have_the_summaries_of_the_whole():
    rng = np.random.default_rng(0)
    candidates, context = random_pool(rng, 40), replace(random_context(rng, 40), labelled=None)
    context = replace(context, labelled=Labelled(random_pool(rng, 5), None))
    whole = Coverage().summaries(candidates, context)
    parts = [Coverage().summaries(candidates.take(part), context) for part in np.array_split(np.arange(40), 7)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert whole.dtype == np.float32


# oracle


def test_oracle_by_hand():
    context = Context(0, np.array([1, 0]), true_counts=np.array([[3, 0], [0, 1], [0, 0]]))
    query = Oracle().select(Candidates.unseen(["a", "b", "c"], 2), 3, context)
    assert query.image_ids == ("b", "a", "c")
    assert query.scores == (pytest.approx(np.log(2) / 2), pytest.approx(np.log(5 / 2) / 4), 0.0)
    assert Oracle(alpha=0).select(Candidates.unseen(["a", "b", "c"], 2), 1, context).image_ids == ("a",)


def test_to_the_oracle_a_further_image_of_a_group_counts_less():
    counts = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    candidates = Candidates.unseen(["a1", "a2", "b1", "b2"], 2)
    candidates = replace(candidates, groups=np.array(["a", "a", "b", "b"], object))
    context = Context(0, np.array([1, 0]), true_counts=counts, labelled_in_group={"b": 1})
    query = Oracle().select(candidates, 4, context)
    assert query.image_ids[:2] in {(f"a{i}", f"b{j}") for i in (1, 2) for j in (1, 2)}
    assert query.scores == pytest.approx(
        [np.log(3 / 2) / 2, np.log(2) / 2 / 2, np.log(4 / 3) / 2 / 2, np.log(3 / 2) / 2 / 3]
    )
    plain = Oracle().select(replace(candidates, groups=None), 4, context)
    assert plain.image_ids[0][0] == "b"


def test_the_oracle_says_what_it_is_and_asks_for_the_labels():
    assert Oracle().label == "oracle (knows the labels)"
    assert Oracle(alpha=0.5).label == "oracle (knows the labels) alpha=0.5"
    assert (Oracle.is_control, Oracle.simulation_only, Oracle.needs) == (True, True, "nothing")
    with pytest.raises(QueryError, match="nobody knows those of these images"):
        Oracle().select(Candidates.unseen(["a"], 2), 1, NOTHING_LABELLED)


# core_set


@given(seeds)
def test_core_set_is_the_plain_farthest_first_loop(seed):
    rng = np.random.default_rng(seed)
    candidates = random_pool(rng, 12)
    # of no two distances equal, so that none is left to the hash
    candidates = replace(candidates, image_embeddings=rng.normal(size=(12, 4)).astype(np.float32))
    labelled = replace(random_pool(rng, 3, "labelled"), image_embeddings=rng.normal(size=(3, 4)).astype(np.float32))
    query = CoreSet().select(candidates, 9, Context(0, np.zeros(CLASSES), Labelled(labelled, None)))
    centres, expected, distances = list(labelled.image_embeddings), [], []
    for _ in range(9):
        apart = np.linalg.norm(candidates.image_embeddings[:, None] - np.array(centres), axis=2).min(axis=1)
        expected.append(candidates.image_ids[int(apart.argmax())])
        distances.append(apart.max())
        centres.append(candidates.image_embeddings[int(apart.argmax())])
    assert query.image_ids == tuple(expected)
    assert query.scores == pytest.approx(distances, rel=1e-3)


def test_core_set_begins_by_chance_where_nothing_is_labelled():
    images = seen([[], [], []], of_images=[EAST, NORTH, WEST])
    firsts = {CoreSet().select(images, 2, replace(NOTHING_LABELLED, seed=seed)).image_ids[0] for seed in range(20)}
    assert firsts == {"a", "b", "c"}
    assert CoreSet().select(images, 1, NOTHING_LABELLED).scores == (0.0,)


# ppal


def test_ppal_calibrates_by_the_confidence_of_each_class():
    labelled = seen([[((0.8, 0.0), EAST), ((0.6, 0.0), EAST)], [((0.1, 1.0), WEST)]])
    context = Context(0, np.zeros(2), Labelled(labelled, None))
    scores = Ppal(alpha=0.5, beta=0.4).image_scores(seen([[(UNSURE, EAST), ((0.0, 0.5), EAST)], []]), context)
    # an entropy of 1 bit each; difficulty 1 - .7 and 0
    assert scores == pytest.approx([1 + 0.5 * 0.4 * np.log1p((np.e**2 - 1) * 0.3) + 1, 0], rel=1e-5)
    unseen = Ppal(beta=0.2).image_scores(seen([[(UNSURE, EAST)]]), NOTHING_LABELLED)
    assert unseen == pytest.approx([1.2])


def test_ppal_asks_for_the_centre_of_each_cluster():
    near = [(1.0, 0.0), (1.0, 0.1), (1.0, 0.2)]
    images = seen([[((0.5 - i / 100, 0.0), e)] for i, e in enumerate([*near, (0.0, 1.0), (0.1, 1.0)])])
    query = Ppal().select(images, 2, NOTHING_LABELLED)
    assert query.image_ids in (("b", "d"), ("b", "e"))
    assert query.scores == tuple(sorted(query.scores, reverse=True))


# options and errors


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("diverse", {"beta": 0.5}, "beta is 0.5: it must be a number of 1 or more"),
        ("diverse", {"distance_power": -1}, "distance_power is -1: it must be a number from 0 to 10"),
        ("diverse", {"score_power": "much"}, "score_power is 'much'"),
        ("diverse", {"aggregation": "summ"}, "unknown aggregation 'summ': did you mean 'sum'?"),
        ("coverage", {"alpha": float("nan")}, "alpha is nan: it must be a number from 0 to 2"),
        ("coverage", {"image_cost": 0}, "image_cost is 0: it must be a number of 0.001 or more"),
        ("coverage", {"uncertainty": "entropie"}, "unknown uncertainty 'entropie': did you mean 'entropy'?"),
        ("coverage", {"box_cost": float("inf")}, "box_cost is inf: it must be a number of 0 or more"),
        ("coverage", {"clusters": 2.5}, "clusters is 2.5: it must be a whole number"),
        ("ppal", {"alpha": 0}, "alpha is 0: it must be a number of 0.01 or more"),
        ("ppal", {"delta": 0.5}, "delta is 0.5: it must be a number of 1 or more"),
        ("oracle", {"box_cost": True}, "box_cost is True: it must be a number of 0 or more"),
    ],
)
def test_options_that_have_no_meaning_are_refused(name, options, said):
    with pytest.raises(QueryError) as refusal:
        make_strategy(name, options)
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize("strategy", [Diverse(), Coverage(), CoreSet(), Ppal()], ids=lambda strategy: strategy.name)
def test_images_without_embeddings_are_refused(strategy):
    bare = replace(seen([[(UNSURE, EAST)]]), box_embeddings=None, image_embeddings=None)
    with pytest.raises(QueryError, match="score them with embeddings"):
        strategy.select(bare, 1, NOTHING_LABELLED)


@pytest.mark.parametrize("strategy", [Diverse(), Coverage(), CoreSet(), Ppal()], ids=lambda strategy: strategy.name)
def test_embeddings_that_are_not_finite_are_refused(strategy):
    broken = seen([[(UNSURE, (np.nan, 1.0))]], of_images=[(np.nan, 1.0)])
    with pytest.raises(ValueError, match="1 of 1 embeddings are not finite, the first is row 0"):
        strategy.select(broken, 1, labelled_boxes(EAST))
