"""The six species of the data set "reef": how each is drawn, how large and how common it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

Colour = tuple[int, ...]
Points = Sequence[tuple[float, float]] | np.ndarray


class Brush:
    """Draws on one sprite, in body lengths: x points forward, y down, (0, 0) is the middle of the animal."""

    def __init__(self, length: float, tilt: float, flip: bool, tint: np.ndarray) -> None:
        half = int(length * 0.8) + 2
        self.sprite = PillowImage.new("RGBA", (2 * half, 2 * half))
        self._draw = ImageDraw.Draw(self.sprite)
        cos, sin = np.cos(tilt) * length, np.sin(tilt) * length
        self._turn = np.array([[-cos if flip else cos, -sin if flip else sin], [-sin, cos]])
        self._half, self._length, self._tint = half, length, tint

    def polygon(self, points: Points, colour: Colour, *, smooth: bool = False) -> None:
        corners = np.asarray(points, dtype=np.float64)
        self._draw.polygon(self._pixels(rounded(corners) if smooth else corners), fill=self._tinted(colour))

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour) -> None:
        self.polygon(np.asarray(centre) + ring(28) * radii, colour)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        pixels = max(2, round(width * self._length))
        self._draw.line(
            self._pixels(np.asarray(points, dtype=np.float64)), fill=self._tinted(colour), width=pixels, joint="curve"
        )

    def _pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        return corners_of(points @ self._turn.T + self._half)

    def _tinted(self, colour: Colour) -> Colour:
        red, green, blue = np.clip(np.asarray(colour[:3]) * self._tint, 0, 255).astype(int).tolist()
        return red, green, blue, colour[3] if len(colour) > 3 else 255


def corners_of(points: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def ring(num_points: int) -> np.ndarray:
    """(num_points, 2): the unit circle."""
    angles = np.arange(num_points) * (2 * np.pi / num_points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def rounded(corners: np.ndarray) -> np.ndarray:
    """A closed outline with its corners cut twice (Chaikin): (n, 2) to (4n, 2)."""
    for _ in range(2):
        after = np.roll(corners, -1, axis=0)
        corners = np.stack([0.75 * corners + 0.25 * after, 0.25 * corners + 0.75 * after], axis=1).reshape(-1, 2)
    return corners


def _fusilier(brush: Brush, swing: float) -> None:
    yellow, silver, back = (250, 214, 60), (206, 224, 232), (70, 120, 178)
    tail = 0.05 * swing
    brush.polygon([(-0.26, 0), (-0.52, -0.19 + tail), (-0.4, tail), (-0.52, 0.19 + tail)], yellow)
    brush.polygon([(0.14, -0.12), (-0.02, -0.22), (-0.24, -0.1)], back)
    brush.polygon([(0.06, 0.12), (-0.06, 0.2), (-0.14, 0.1)], silver)
    body = [(0.53, 0.01), (0.3, -0.15), (0, -0.18), (-0.3, -0.05), (-0.38, 0), (-0.3, 0.05), (0, 0.17), (0.3, 0.14)]
    brush.polygon(body, silver, smooth=True)
    brush.polygon([*body[:4], (-0.38, -0.01), (0, -0.06), (0.3, -0.04)], back, smooth=True)
    brush.line([(0.3, -0.03), (0, -0.045), (-0.33, 0)], 0.05, yellow)
    brush.ellipse((0.36, -0.03), (0.035, 0.035), (14, 18, 24))


def _butterflyfish(brush: Brush, swing: float) -> None:
    yellow, white, black = (252, 206, 36), (246, 242, 226), (24, 22, 28)
    tail = 0.03 * swing
    brush.polygon([(-0.3, -0.05), (-0.5, -0.13 + tail), (-0.5, 0.13 + tail), (-0.3, 0.05)], yellow)
    brush.polygon([(0.12, -0.36), (-0.18, -0.52), (-0.4, -0.34), (-0.34, 0), (-0.4, 0.34), (-0.18, 0.5), (0.12, 0.36)],
                  yellow, smooth=True)  # fmt: skip
    brush.polygon([(0.22, -0.14), (0.52, 0.03), (0.52, 0.08), (0.22, 0.18)], white)
    brush.ellipse((0, 0), (0.37, 0.4), white)
    for front, rear, colour in ((-0.06, -0.36, yellow), (0.27, 0.17, black), (0.05, -0.05, black), (-0.2, -0.3, black)):
        x = np.linspace(front, rear, 6)
        edge = 0.4 * np.sqrt(1 - (x / 0.37) ** 2)
        brush.polygon([*zip(x, -edge, strict=True), *zip(x[::-1], edge[::-1], strict=True)], colour)
    brush.ellipse((0.24, -0.05), (0.045, 0.045), (240, 240, 240))
    brush.ellipse((0.24, -0.05), (0.025, 0.025), (8, 8, 8))


def _crab(brush: Brush, swing: float) -> None:
    shell, dark, claw = (222, 66, 38), (150, 34, 26), (238, 96, 50)
    for side in (-1, 1):
        for leg in range(4):
            step = 0.03 * swing * (-1) ** leg
            knee = (side * (0.4 - 0.03 * leg), -0.06 + 0.09 * leg + step)
            brush.line(
                [(side * 0.2, 0.02 + 0.03 * leg), knee, (side * (0.5 - 0.06 * leg), 0.12 + 0.085 * leg)], 0.05, dark
            )
        brush.line([(side * 0.2, -0.06), (side * 0.36, -0.16), (side * 0.3, -0.28)], 0.075, shell)
        brush.ellipse((side * 0.29, -0.32), (0.11, 0.12), claw)
        brush.polygon([(side * 0.28, -0.32), (side * 0.18, -0.47), (side * 0.27, -0.47)], (0, 0, 0, 0))
        brush.line([(side * 0.07, -0.12), (side * 0.08, -0.25)], 0.035, shell)
        brush.ellipse((side * 0.08, -0.26), (0.035, 0.035), (16, 12, 16))
    brush.polygon(
        [(-0.34, -0.06), (-0.2, -0.19), (0.2, -0.19), (0.34, -0.06), (0.2, 0.2), (-0.2, 0.2)], shell, smooth=True
    )
    brush.line([(-0.2, -0.06), (0, 0.0), (0.2, -0.06)], 0.03, dark)
    for x, y in ((-0.1, -0.1), (0.1, -0.1), (-0.12, 0.07), (0.12, 0.07), (0, 0.1)):
        brush.ellipse((x, y), (0.025, 0.02), claw)


def _jellyfish(brush: Brush, swing: float) -> None:
    bell, rim, glow, arm = (236, 168, 214, 205), (246, 210, 236, 235), (255, 232, 246, 230), (228, 150, 204, 170)
    wide = 0.3 + 0.025 * swing
    y = np.linspace(-0.16, 0.5, 9)
    for i, x in enumerate(np.linspace(-0.8, 0.8, 6)):
        wave = 0.035 * np.sin(14 * y + 1.3 * i + 2 * swing)
        brush.line(np.stack([x * wide * (1 - 0.25 * (y + 0.16)) + wave, y * (0.8 + 0.2 * (i % 2))], axis=1), 0.03, arm)
    for x in (-0.09, 0, 0.09):
        brush.line(np.stack([x + 0.05 * np.sin(9 * y + x * 20 + swing), y * 0.75], axis=1), 0.065, rim)
    dome = ring(24)[12:] * (wide, 0.34) + (0, -0.14)
    scallops = [(wide * (1 - i / 6), -0.14 + (0.06 if i % 2 else 0.01)) for i in range(13)]
    brush.polygon([(-wide, -0.14), *dome, *scallops], bell)
    brush.line(scallops, 0.03, rim)
    for x in (-0.13, 0, 0.13):
        brush.ellipse((x, -0.27), (0.055, 0.075), glow)


def _starfish(brush: Brush, swing: float) -> None:
    skin, dots, edge = (136, 58, 168), (238, 176, 222), (84, 30, 112)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    spokes = ring(5) @ turn
    between = np.roll(ring(10), -1, axis=0)[::2] @ turn
    for scale, colour in ((1.0, edge), (0.86, skin)):
        corners = []
        for spoke, gap in zip(spokes, between, strict=True):
            side = np.array([-spoke[1], spoke[0]]) * 0.1
            corners += [0.52 * spoke - side, 0.52 * spoke + side, 0.17 * gap]
        brush.polygon(np.array(corners) * scale + (0.0, 0.002 * swing), colour, smooth=True)
    for reach in (0.12, 0.22, 0.32):
        for x, y in spokes * reach:
            brush.ellipse((x, y), (0.028, 0.028), dots)
    brush.ellipse((0, 0), (0.04, 0.04), dots)


def _turtle(brush: Brush, swing: float) -> None:
    skin, rim, shell, scute = (122, 142, 70), (78, 60, 32), (126, 92, 46), (184, 148, 78)
    stroke = 0.06 * swing
    for side in (-1, 1):
        front = [(0.22, 0.14), (0.3, 0.2), (0.12 + stroke, 0.46), (-0.06 + stroke, 0.5), (0.06, 0.26)]
        rear = [(-0.2, 0.12), (-0.28, 0.24), (-0.42, 0.28 - stroke), (-0.36, 0.16), (-0.28, 0.06)]
        for flipper in (front, rear):
            brush.polygon([(x, side * y) for x, y in flipper], skin, smooth=True)
    brush.polygon([(-0.3, -0.04), (-0.46, 0), (-0.3, 0.04)], skin)
    brush.polygon(
        [(0.22, -0.08), (0.4, -0.1), (0.53, -0.03), (0.53, 0.03), (0.4, 0.1), (0.22, 0.08)], skin, smooth=True
    )
    for side in (-1, 1):
        brush.ellipse((0.43, side * 0.055), (0.02, 0.02), (16, 20, 16))
    outline = np.array(
        [(0.3, 0), (0.24, -0.2), (0, -0.29), (-0.24, -0.2), (-0.36, 0), (-0.24, 0.2), (0, 0.29), (0.24, 0.2)]
    )
    brush.polygon(outline * 1.08, rim, smooth=True)
    brush.polygon(outline, shell, smooth=True)
    for x, y in ((0.14, 0), (-0.03, 0), (-0.2, 0), (0.08, -0.15), (-0.1, -0.15), (0.08, 0.15), (-0.1, 0.15)):
        brush.polygon((x, y) + ring(6) * (0.075, 0.065), scute)


@dataclass(frozen=True)
class Species:
    """How one species looks and moves.

    Args:
        share: of all animals.
        lengths: smallest and largest, in pixels of a frame of `REFERENCE_HEIGHT`.
        tilt: standard deviation, in degrees; the animal that has no upright side turns freely.
        speed: pixels per frame.
        floor: lives on the sand.
    """

    name: str
    share: float
    draw: Callable[[Brush, float], None]
    lengths: tuple[float, float]
    tilt: float
    speed: float
    floor: bool = False


SPECIES = (
    Species("fusilier", 0.45, _fusilier, (26, 46), 12, 4.0),
    Species("butterflyfish", 0.25, _butterflyfish, (24, 44), 12, 3.0),
    Species("crab", 0.14, _crab, (26, 46), 8, 1.5, floor=True),
    Species("jellyfish", 0.09, _jellyfish, (30, 56), 10, 2.0),
    Species("starfish", 0.05, _starfish, (24, 44), 180, 0.1, floor=True),
    Species("turtle", 0.02, _turtle, (46, 70), 30, 4.0),
)
