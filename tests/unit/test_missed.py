"""What a cascade may have missed, on pairs of scores whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest

from raylearn.measures.missed import Found, cut_needed, missed_share, search

NUM_IMAGES, MANY, NUM_SAMPLED = 3000, 10_000, 400
Pairs = tuple[np.ndarray, np.ndarray]
Draw = Callable[..., Pairs]


def spread(rng: np.random.Generator, num: int = NUM_IMAGES) -> Pairs:
    """The exact score is the fast one but for a factor, so that the noise grows with it."""
    fast = rng.gamma(2, 1, num)
    return fast, fast * np.exp(rng.normal(0, 0.15, num))


def crowded(rng: np.random.Generator, num: int = NUM_IMAGES) -> Pairs:
    """Sums over detections, of which the fast setting finds none in many images."""
    exact = rng.gamma(2 * np.exp(rng.normal(0, 1, num)), 0.5)
    fast = np.maximum(0, 0.8 * exact + rng.normal(0, 0.5 * np.sqrt(exact) + 0.05))
    fast[(rng.random(num) < 0.3) & (exact < 0.5)] = 0
    return fast, exact


def bounded(rng: np.random.Generator, num: int = NUM_IMAGES) -> Pairs:
    """Maxima, which come near to their limit."""
    exact = rng.beta(2, 8, num)
    return np.clip(exact + 0.03 * rng.standard_t(5, num), 0, 1), exact


def unrelated(rng: np.random.Generator, num: int = NUM_IMAGES) -> Pairs:
    return rng.gamma(2, 1, num), rng.gamma(2, 1, num)


def order_of(fast: np.ndarray) -> np.ndarray:
    return np.argsort(-fast, kind="stable")


def known(fast: np.ndarray, exact: np.ndarray, cut: int, rng: np.random.Generator) -> np.ndarray:
    """The exact scores of the best by the fast score and of a sample; NaN of the others."""
    found = np.full(len(fast), np.nan)
    for scored in (order_of(fast)[:cut], rng.permutation(len(fast))[:NUM_SAMPLED]):
        found[scored] = exact[scored]
    return found


def really_missed(exact: np.ndarray, found: np.ndarray, size: int) -> float:
    return float(np.isnan(found[np.argsort(-exact)[:size]]).mean())


def searched(pairs: Pairs, size: int, max_miss: float, seed: int = 0, told: list[str] | None = None) -> Found:
    fast, exact = pairs
    sample = np.random.default_rng(seed).permutation(len(fast))[:NUM_SAMPLED]
    tell = (lambda _: None) if told is None else told.append
    return search(fast, order_of(fast), sample, lambda where: exact[where], size, max_miss, seed, tell)


LONG = pytest.mark.long


@pytest.mark.parametrize("draw", [bounded, pytest.param(spread, marks=LONG), pytest.param(crowded, marks=LONG)])
def test_the_stated_bound_holds_and_is_not_empty(draw: Draw) -> None:
    size, cut = 200, 400
    real, stated = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        fast, exact = draw(rng, MANY)
        found = known(fast, exact, cut, rng)
        real.append(really_missed(exact, found, size))
        stated.append(missed_share(fast, exact=found, order=order_of(fast), cut=cut, size=size, seed=seed))
    assert np.mean(np.array(real) > 0) > 0.9, "where nothing is missed nothing is tested"
    assert sum(share <= told.high for share, told in zip(real, stated, strict=True)) >= 95
    assert np.mean([told.high for told in stated]) < 8 * np.mean(real)


@LONG
@pytest.mark.parametrize("draw", [spread, crowded, bounded, unrelated])
def test_the_bound_holds_where_the_search_decides_when_to_stop(draw: Draw) -> None:
    held = 0
    for seed in range(100):
        pairs = draw(np.random.default_rng(seed))
        found = searched(pairs, 30, 0.1, seed)
        assert found.missed.high <= 0.1
        held += really_missed(pairs[1], found.exact, 30) <= found.missed.high
    assert held >= 95


def test_more_are_scored_exactly_until_the_bound_holds() -> None:
    pairs, told = spread(np.random.default_rng(1)), list[str]()
    found = searched(pairs, 30, 0.05, told=told)
    assert not found.scored_all
    assert 60 < found.cut < 1500
    assert found.missed.high <= 0.05
    assert np.count_nonzero(~np.isnan(found.exact)) <= found.cut + NUM_SAMPLED
    assert not np.isnan(found.exact[order_of(pairs[0])[: found.cut]]).any()
    assert len(told) > 1
    assert told[0].startswith("60 best by the fast score are scored exactly: expected to miss ")
    assert searched(pairs, 30, 0.5).cut < found.cut


def test_where_the_fast_score_says_nothing_all_are_scored_exactly_and_that_is_said() -> None:
    told = list[str]()
    found = searched(unrelated(np.random.default_rng(0)), 30, 0.1, told=told)
    assert found.scored_all
    assert not np.isnan(found.exact).any()
    assert found.missed.high == 0
    assert told[-1].startswith("the cascade cannot win: ")


def test_a_query_of_much_of_the_pool_is_a_plain_pass_at_once() -> None:
    calls = list[int]()

    def score(where: np.ndarray) -> np.ndarray:
        calls.append(len(where))
        return np.ones(len(where))

    fast = np.random.default_rng(0).random(1000)
    assert search(fast, order_of(fast), np.arange(400), score, 60, 0.1, 0).scored_all
    assert calls == [1000]


def test_an_image_drawn_by_chance_that_belongs_to_the_top_contradicts_the_model() -> None:
    fast, exact = crowded(np.random.default_rng(2))
    order = order_of(fast)
    found = known(fast, exact, 200, np.random.default_rng(3))
    before = missed_share(fast, found, order, 200, 30, 0)
    drawn = order[200:][~np.isnan(found[order[200:]])]
    found[drawn[-1]] = exact.max() + 1
    after = missed_share(fast, found, order, 200, 30, 0)
    unscored = np.isnan(found).sum()
    assert after.expected >= unscored / len(drawn) / 30 * 0.99 or after.expected == 1
    assert after.high > before.high


def test_what_cannot_be_read_is_neither_a_pair_nor_a_candidate() -> None:
    fast, exact = spread(np.random.default_rng(4))
    exact[order_of(fast)[:5]] = -np.inf
    found = searched((fast, exact), 30, 0.2)
    assert np.isneginf(found.exact).sum() >= 5
    assert np.isfinite(found.missed.high)


def test_where_all_scores_are_equal_nothing_is_chosen_and_all_are_scored() -> None:
    for pairs in ((np.zeros(3000), np.zeros(3000)), (np.arange(3000.0), np.ones(3000))):
        assert searched(pairs, 30, 0.1).scored_all


def test_what_is_needed_is_no_more_where_more_may_be_missed() -> None:
    fast, exact = spread(np.random.default_rng(5))
    found, order = known(fast, exact, 60, np.random.default_rng(6)), order_of(fast)
    needed = [cut_needed(fast, found, order, 60, 30, most, 0) for most in (0.5, 0.2, 0.1, 0.03)]
    assert needed == sorted(needed)
    assert 60 <= needed[0] < needed[-1] <= 3000
