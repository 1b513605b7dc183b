"""The map of a page, as a run left it in map.json: where in the space of image embeddings each arm asked."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylearn.errors import RunFolderError
from raylearn.reporting.summary import Arm, one_line

MAP_FILE = "map.json"
NUM_COLOURS = 7  # of the page; of more rounds, neighbouring ones share a colour


@dataclass(frozen=True)
class PoolMap:
    """Images of one seed as points, and what each trial of that seed made of them.

    Args:
        points: (x, y) in 0 to 1000, y upwards.
        shares: of the variance, that each axis holds.
        num_images: that have an embedding; `points` are all of them, or a sample.
        num_pool: images of the pool.
        start: indices of the points that were labelled at first.
        chosen: trial -> round -> indices of the points that it chose.
    """

    seed: int
    points: Sequence[tuple[int, int]]
    shares: tuple[float, float]
    num_images: int
    num_pool: int
    start: Sequence[int]
    chosen: Mapping[str, Mapping[int, Sequence[int]]]

    @property
    def num_rounds(self) -> int:
        return max((number for rounds in self.chosen.values() for number in rounds), default=0)

    @property
    def height(self) -> int:
        """Of the drawing: the axes have one scale, and the second holds less."""
        return max((y for _, y in self.points), default=0) - self._lowest

    @property
    def _lowest(self) -> int:
        return min((y for _, y in self.points), default=0)

    def arms(self, arms: Iterable[Arm]) -> Iterator[tuple[Arm, Mapping[int, str]]]:
        """Arms that are on it, and for each colour the path of the points that they chose in its rounds."""
        for arm in arms:
            own = next((self.chosen[trial] for trial in arm.trials if trial in self.chosen), None)
            if own is not None:
                by_colour: dict[int, list[int]] = {}
                for number, indices in sorted(own.items()):
                    by_colour.setdefault(self.colour(number), []).extend(indices)
                yield arm, {colour: self.path(indices) for colour, indices in by_colour.items()}

    def colour(self, round_number: int) -> int:
        """0 to NUM_COLOURS - 1, for the images that were chosen for this round."""
        return (round_number - 1) // -(-self.num_rounds // NUM_COLOURS)

    @property
    def colours(self) -> Mapping[int, str]:
        """The rounds of each colour, in words."""
        rounds: dict[int, list[int]] = {}
        for number in range(1, self.num_rounds + 1):
            rounds.setdefault(self.colour(number), []).append(number)
        return {
            colour: f"round {own[0]}" if len(own) == 1 else f"rounds {own[0]} to {own[-1]}"
            for colour, own in rounds.items()
        }

    def path(self, indices: Iterable[int] | None = None) -> str:
        """A dot for each point, of all of them or of these, as SVG path data."""
        shown = self.points if indices is None else [self.points[index] for index in indices]
        top = self._lowest + self.height
        return "".join(f"M{x} {top - y}h0" for x, y in shown)


def read_map(path: Path) -> PoolMap | None:
    """The map of a run, or None where it left none.

    Raises:
        RunFolderError: it cannot be read, or is not what a run writes.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        points = [(int(x), int(y)) for x, y in content["points"]]
        first, second = (float(share) for share in content["shares"])
        chosen = {
            str(trial): {int(number): _indices(of_round, len(points)) for number, of_round in rounds.items()}
            for trial, rounds in content["trials"].items()
        }
        if not all(0 <= x <= 1000 and 0 <= y <= 1000 for x, y in points) or not (0 <= first <= 1 and 0 <= second <= 1):
            raise ValueError("a point or a share is out of its range")
        if any(number < 1 for rounds in chosen.values() for number in rounds):
            raise ValueError("a query is for no round")
        return PoolMap(
            int(content["seed"]),
            points,
            (first, second),
            int(content["num_images"]),
            int(content["num_pool"]),
            _indices(content["start"], len(points)),
            chosen,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunFolderError(f"{path} cannot be read ({one_line(error)}): remove it, and run again") from error


def _indices(values: Any, num_points: int) -> list[int]:
    indices = [int(value) for value in values]
    if not all(0 <= index < num_points for index in indices):
        raise ValueError("a point is named that is not there")
    return indices
