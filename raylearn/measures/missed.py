"""How much of the best of a pool is missed where only the best by a cheaper score are scored exactly."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raylearn.measures.sampling import random_generator

BETA = 2
"""So many images for each one that is asked for are scored exactly at first."""
WORTH = 0.5
"""The share of a pool above which it is no longer worth choosing what is scored exactly: everything is."""
_IN_BIN = 100  # pairs whose exact scores are taken for draws from one distribution around the curve
_MOST_BINS = 100
_ALIKE = 5  # images of the lowest fast score that are a bin of their own
_LEVEL = 0.8  # quantile of the exact score above which its tail begins
_DRAWS, _COUNTS = 400, 5
_INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Missed:
    """The share of the exact top N that is not among the images scored exactly, each in [0, 1].

    Args:
        expected: the mean.
        low, high: an interval of 95 %.
    """

    expected: float
    low: float
    high: float


NONE_MISSED = Missed(0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Found:
    """What `search` scored.

    Args:
        exact: (M,) exact scores; NaN where an image was not scored so, -inf where it could not be.
        cut: images that were scored exactly because of their fast score.
        missed: of the top N.
        scored_all: whether it could not win, and all images were scored exactly.
    """

    exact: np.ndarray
    cut: int
    missed: Missed
    scored_all: bool


def search(
    fast: np.ndarray,
    order: np.ndarray,
    sample: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    size: int,
    max_miss: float,
    seed: int,
    tell: Callable[[str], None] = lambda _: None,
) -> Found:
    """Scores a sample exactly, and then the best by the fast score until few of the exact top N can be missing.

    The upper estimate of `_Tail` rises with the fast score, so the best by either are the same images.

    Args:
        fast: (M,) finite fast scores.
        order: (M,) positions, the highest fast score first.
        sample: (n,) positions drawn at random, whatever their scores.
        score: gives the exact scores at (k,) positions; -inf where an image cannot be read.
        size: N, at most M.
        max_miss: the most that `missed.high` may be.
        seed: of the estimate's draws.
        tell: told how far it is.
    """
    exact = np.full(len(fast), np.nan)

    def score_missing(positions: np.ndarray) -> None:
        missing = positions[np.isnan(exact[positions])]
        if len(missing):
            exact[missing] = score(missing)

    cut = BETA * size
    while not too_many(cut, len(sample), len(fast)):
        score_missing(np.union1d(sample, order[:cut]))  # at once: each call may be a pass, which takes time to start
        found = missed_share(fast, exact, order, cut, size, seed)
        tell(f"{cut:,} best by the fast score are scored exactly: {in_words(found)}")
        if found.high <= max_miss:
            return Found(exact, cut, found, False)
        needed = cut_needed(fast, exact, order, cut, size, max_miss, seed)
        cut = min(max(needed, cut + max(1, size // 2)), 2 * cut)  # what is scored on the way makes the estimate better
    why = f"{min(cut, len(fast)):,} of {len(fast):,} images would have to be scored exactly"
    tell(f"the cascade cannot win: {why}; all of them are scored exactly")
    score_missing(order)
    return Found(exact, len(fast), NONE_MISSED, True)


def too_many(cut: int, num_sampled: int, num_images: int) -> bool:
    """Whether so many images are to be scored exactly that choosing them is not worth it."""
    return cut + num_sampled > WORTH * num_images


def in_words(missed: Missed) -> str:
    """Such as "expected to miss 0.4 % of the exact top (95 %: 0.0 to 1.5 %)"."""
    low, high = 100 * missed.low, 100 * missed.high
    return f"expected to miss {100 * missed.expected:.1f} % of the exact top (95 %: {low:.1f} to {high:.1f} %)"


def missed_share(fast: np.ndarray, exact: np.ndarray, order: np.ndarray, cut: int, size: int, seed: int) -> Missed:
    """The share of the exact top N among images that were not scored exactly.

    With t the N-th best of the exact scores that are known, an image of the top N was missed only if its exact score is
    above t. How likely that is given its fast score is estimated from all pairs of scores, whose images were chosen
    by chance or by the fast score alone, so that the exact score given the fast one is not biased. A curve through the
    .8 quantile of the exact score, made to rise with the fast one, is the upper estimate; the tail above it is taken to
    be exponential, with a scale that depends on the fast score (peaks over a threshold: Coles, An Introduction to
    Statistical Modeling of Extreme Values, 2001, chapter 4, with a shape of 0). Its uncertainty is that of residuals
    resampled in bins of the fast score (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
    6.2), of scales given the number of excesses (their posterior under a flat prior of the logarithm, a gamma
    distribution), and of a Poisson number of missed images.

    Assumed: tails are not heavier than exponential, and images of nearly one fast score are alike, as are those of the
    lowest one, which mostly have no detections. A sample of 1 % alone could never tell that 2 % of the best 1 % are
    missing: by the rule of three it would have to be most of the pool. But it can contradict: where an image drawn by
    chance is above t without being among the best by the fast score, the share is at least what the rate of such images
    says of the pool.

    Args:
        fast, order: see `search`.
        exact: (M,) NaN where an image was not scored exactly, -inf where it could not be.
        cut: the first so many of `order` were scored exactly because of that.
        size: N; at least as many images have exact scores.
        seed: of the draws.
    """
    threshold, rates, weights = _rates(fast, exact, order, size, seed)
    rest = exact[order[cut:]]
    drawn = rest[~np.isnan(rest)]
    seen = float(np.mean(drawn > threshold)) * int(np.isnan(rest).sum()) / size if len(drawn) else 0.0
    share = _share(rates @ weights, size, seed)
    return Missed(*(min(1.0, max(value, seen)) for value in (share.expected, share.low, share.high)))


def cut_needed(
    fast: np.ndarray, exact: np.ndarray, order: np.ndarray, cut: int, size: int, max_miss: float, seed: int
) -> int:
    """How many of the best by the fast score are to be scored exactly, as far as is known; see `missed_share`."""
    _, rates, weights = _rates(fast, exact, order, size, seed)
    left = np.cumsum((rates * weights)[:, ::-1], axis=1)[:, ::-1]  # expected to be missed from each group on
    low, high = 0, len(weights)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _share(left[:, middle], size, seed).high <= max_miss else (middle + 1, high)
    return cut + int(weights[:low].sum())


def _share(means: np.ndarray, size: int, seed: int) -> Missed:
    """Of Poisson counts with these means."""
    counts = random_generator(seed, "missed").poisson(np.minimum(means, 1e9), (_COUNTS, len(means))) / size
    low, high = np.percentile(counts, _INTERVAL, method="higher")
    return Missed(float(np.mean(means)) / size, float(low), float(high))


def _rates(
    fast: np.ndarray, exact: np.ndarray, order: np.ndarray, size: int, seed: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """The N-th best exact score; (B, G) how likely images not scored exactly are above it; (G,) how many are alike.

    Groups of images that follow each other in order, one image each at first and larger later, stand for their first.
    """
    known = np.isfinite(exact)
    threshold = float(np.partition(exact[known], -size)[-size])
    unscored = fast[order][np.isnan(exact[order])]
    starts = np.arange(len(unscored))
    if len(starts) > 1000:
        starts = np.unique(np.r_[starts[:200], np.geomspace(200, len(unscored) - 1, 800).astype(np.int64)])
    weights = np.diff(np.r_[starts, len(unscored)]).astype(np.float64)
    tail = _Tail(fast[known], exact[known], random_generator(seed, "tail"))
    return threshold, tail.above(threshold, unscored[starts]), weights


class _Tail:
    """The upper tail of the exact score given the fast one, as `_DRAWS` curves that pairs of both could have given.

    Args:
        fast, exact: (n,) of images that were scored both ways, n >= 1.
        rng: resamples.
    """

    def __init__(self, fast: np.ndarray, exact: np.ndarray, rng: np.random.Generator) -> None:
        by_fast = np.argsort(fast, kind="stable")
        fast, exact = fast[by_fast], exact[by_fast]
        bins = [slice(start, end) for start, end in _bins(fast)]
        self._centres = np.array([np.median(fast[own]) for own in bins])
        middle = np.maximum.accumulate([np.median(exact[own]) for own in bins])
        residuals = exact - np.interp(fast, self._centres, middle)
        levels, scales = [], []
        for own, at in zip(bins, middle, strict=True):
            drawn = rng.choice(residuals[own], (_DRAWS, own.stop - own.start))
            level = np.quantile(drawn, _LEVEL, axis=1, keepdims=True)
            levels.append(at + level[:, 0])
            excesses = (1 - _LEVEL) * drawn.shape[1]
            scales.append(np.maximum(drawn - level, 0).sum(axis=1) / rng.gamma(excesses, size=_DRAWS))
        self._levels = np.maximum.accumulate(np.array(levels), axis=0).T
        counts = (1 - _LEVEL) * np.array([own.stop - own.start for own in bins])
        own_scales = np.array(scales).T
        # one excess of the usual scale to begin with: a bin whose few are equal knows little of its tail
        self._scales = (own_scales * counts + own_scales.mean(axis=1, keepdims=True)) / (counts + 1)

    def above(self, threshold: float, fast: np.ndarray) -> np.ndarray:
        """(B, k) how likely the exact score of images of (k,) fast scores is above a threshold."""
        bins = np.eye(len(self._centres))
        weights = np.array([np.interp(fast, self._centres, own) for own in bins])  # (bins, k), of the two nearest
        over = np.maximum(threshold - self._levels @ weights, -1e300) / np.maximum(self._scales @ weights, 1e-12)
        return np.asarray(np.minimum(1.0, (1 - _LEVEL) * np.exp(-np.maximum(over, -50))))


def _bins(fast: np.ndarray) -> list[tuple[int, int]]:
    """Where bins of some `_IN_BIN` of (n,) sorted scores begin and end; equal scores are in one bin."""
    step = max(_IN_BIN, -(-len(fast) // _MOST_BINS))
    lowest = int(np.searchsorted(fast, fast[0], "right"))  # mostly images without detections, which are of a kind
    starts = [0, lowest] if _ALIKE <= lowest < len(fast) else [0]
    for start in np.searchsorted(fast, fast[step : len(fast) - step // 2 : step]):
        if start - starts[-1] >= step // 2:
            starts.append(int(start))
    return list(zip(starts, [*starts[1:], len(fast)], strict=True))
