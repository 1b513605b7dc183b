"""The map of the pool: where in the space of image embeddings each arm asked."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from raylearn.data.storage import Folder
from raylearn.measures.novelty import unit_vectors
from raylearn.measures.sampling import random_generator
from raylearn.scoring.ledger import Ledger
from raylearn.sweep.grid import Trial
from raylearn.sweep.trial import Scored, TrialRound

MOST_POINTS = 2000
MOST_ASKED = 1500  # of them for images that some arm asked for or started from, the others are left ones
SIDE = 1000  # points lie in a square of so many units


def write_map(rounds: Mapping[Trial, Sequence[TrialRound]], path: Path) -> None:
    """Writes the map of the lowest seed that has one; an earlier one is removed where no arm kept embeddings.

    One set of embeddings is fixed for all arms: those of the seed's round-0 model, which every arm started from. Their
    two principal components are the axes. A JSON file: `seed`; `points`, [x, y] in 0 to SIDE of a sample of the images;
    `shares`, of the variance, that each axis holds; `num_images`, that have embeddings, and `num_pool`; `start`, the
    points that were labelled at first; `trials`, by name for each round the points that it chose, for arms without
    embeddings too. Of more than MOST_ASKED images that were chosen or labelled at first, a random part is kept.
    """
    folder = Folder.at(path.parent)
    found = _with_embeddings(rounds)
    ids, embeddings = _embeddings(found[1]) if found else (np.empty(0), np.empty((0, 0)))
    if found is None or not len(ids):
        folder.remove(path.name)
        return
    seed = found[0]
    of_seed = {trial: done for trial, done in rounds.items() if trial.seed == seed and trial.arm.strategy.asks}
    first = next(iter(of_seed.values()))[0].pool
    asked = {name for done in of_seed.values() for one in done if one.query for name in one.query.image_ids}
    shown = _sample(ids, asked | set(first.labelled), seed)
    places, shares = principal_components(embeddings)
    point = {str(ids[position]): number for number, position in enumerate(shown)}

    def points(names: Iterable[str]) -> list[int]:
        return [point[name] for name in names if name in point]

    content = {
        "seed": seed,
        "points": _scaled(places)[shown].tolist(),
        "shares": [round(share, 4) for share in shares],
        "num_images": len(ids),
        "num_pool": len(first.labelled) + len(first.unlabelled_images),
        "start": points(first.labelled),
        "trials": {
            trial.name: {str(one.index): points(one.query.image_ids) for one in done if one.query}
            for trial, done in of_seed.items()
        },
    }
    folder.replace(path.name, json.dumps(content, separators=(",", ":"), sort_keys=True).encode())


def principal_components(embeddings: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """The two directions in which unit vectors differ most.

    Args:
        embeddings: (N, F), N >= 1, F >= 2; they are brought to length 1, as distances between them are measured.

    Returns:
        (N, 2) float64 coordinates, the signs such that the largest weight of each direction is positive; and the share
        of the variance that each holds, 0 where nothing varies.
    """
    vectors = unit_vectors(embeddings).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    # of the scatter, F x F, which has the same directions as the many rows, and the squares of their singular values
    found, squares, _ = np.linalg.svd(centred.T @ centred)
    directions = found.T[:2]
    strongest = directions[np.arange(2), np.abs(directions).argmax(axis=1)]
    total = squares.sum()
    shares = squares[:2] / total if total > 1e-12 else np.zeros(2)
    return centred @ (directions * np.where(strongest < 0, -1, 1)[:, None]).T, (float(shares[0]), float(shares[1]))


def _with_embeddings(rounds: Mapping[Trial, Sequence[TrialRound]]) -> tuple[int, Scored] | None:
    """The lowest seed of which an arm kept embeddings, and its first passes, with the labelled images if any."""
    found = [
        (trial.seed, done[1].scores)
        for trial, done in rounds.items()
        if trial.arm.strategy.needs_embeddings and len(done) > 1 and done[1].scores
    ]
    return min(found, key=lambda one: (one[0], one[1].labelled is None), default=None)


def _embeddings(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """(N,) ids and (N, F) float16 image embeddings of both passes."""
    passes = [scored.unlabelled, *([scored.labelled] if scored.labelled else [])]
    ledgers = [Ledger.read(one.folder) for one in passes]
    embeddings = [ledger.image_embeddings for ledger in ledgers if ledger.image_embeddings is not None]
    return np.concatenate([ledger.image_ids for ledger in ledgers]), np.concatenate(embeddings)


def _sample(ids: np.ndarray, asked: set[str], seed: int) -> np.ndarray:
    """Positions of the images that are drawn, in order: as many of `asked` as may be, the rest of them left ones."""
    rng = random_generator(seed, "map of the pool")
    is_asked = np.array([name in asked for name in ids], dtype=bool)
    chosen = _some(np.flatnonzero(is_asked), MOST_ASKED, rng)
    return np.sort(np.concatenate([chosen, _some(np.flatnonzero(~is_asked), MOST_POINTS - len(chosen), rng)]))


def _some(positions: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return positions if len(positions) <= most else np.asarray(rng.choice(positions, most, replace=False))


def _scaled(places: np.ndarray) -> np.ndarray:
    """(N, 2) int64 in 0 to SIDE: both axes by one factor, so that distances on paper can be compared."""
    low, high = places.min(axis=0), places.max(axis=0)
    widest = float((high - low).max()) or 1.0
    return np.asarray(np.rint((places - (low + high) / 2) / widest * SIDE + SIDE / 2), np.int64)
