"""Draws the clips of the data set "reef": a fixed camera under water, and the animals that pass it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

Colour = tuple[int, ...]
Points = Sequence[tuple[float, float]] | np.ndarray

OVERSAMPLING = 3  # everything is drawn this much larger and averaged down, for smooth edges
REFERENCE_HEIGHT = 144  # the frame height for which lengths and speeds are given
MIN_VISIBLE_SHARE = 0.4  # of the silhouette: an animal that is cut or hidden more than that is not drawn at all
MIN_VISIBLE_AREA = 36  # pixels of the frame
# light near the surface, and far down
WATERS = (
    ((88, 172, 205), (16, 74, 128)),
    ((104, 190, 188), (24, 98, 116)),
    ((112, 158, 128), (34, 82, 74)),
    ((62, 112, 164), (12, 40, 86)),
)


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
        return _corners(points @ self._turn.T + self._half)

    def _tinted(self, colour: Colour) -> Colour:
        red, green, blue = np.clip(np.asarray(colour[:3]) * self._tint, 0, 255).astype(int).tolist()
        return red, green, blue, colour[3] if len(colour) > 3 else 255


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


@dataclass(frozen=True)
class Frame:
    """One drawn frame: boxes (n, 4) xyxy pixels, tight around what can be seen of each animal; class_ids (n,)."""

    image: PillowImage.Image
    boxes: np.ndarray
    class_ids: np.ndarray


@dataclass(frozen=True)
class Sprite:
    """An animal cut out, and where its upper left corner stands on the oversampled canvas."""

    class_id: int
    pixels: PillowImage.Image
    left: int
    top: int

    def silhouette(self, size: tuple[int, int]) -> np.ndarray:
        """(height, width) bool: what of it falls on a canvas of that size."""
        canvas = PillowImage.new("L", size)
        canvas.paste(self.pixels.getchannel("A"), (self.left, self.top))
        return np.asarray(canvas) > 0

    @property
    def area(self) -> int:
        return int(np.count_nonzero(np.asarray(self.pixels.getchannel("A"))))


@dataclass(frozen=True)
class Animal:
    """One individual of a clip: where it is in the middle of the clip, and how it moves."""

    class_id: int
    centre: tuple[float, float]
    velocity: tuple[float, float]
    nearness: float
    tilt: float
    flip: bool
    tint: np.ndarray
    phase: float

    def sprite(self, time: float, scale: float, water: np.ndarray, rng: np.random.Generator) -> Sprite:
        """It at a time from the middle of the clip, in frames; the further away, the more the water takes of it."""
        species = SPECIES[self.class_id]
        small, large = species.lengths
        length = (small + (large - small) * self.nearness) * scale
        wobble = np.radians(rng.normal(0, 2))
        brush = Brush(length, self.tilt + wobble, self.flip, self.tint)
        species.draw(brush, float(np.sin(self.phase + 1.7 * time)))
        box = brush.sprite.getbbox() or (0, 0, 1, 1)
        pixels = np.asarray(brush.sprite.crop(box)).astype(np.float32)
        lit = np.linspace(1.12, 0.84, len(pixels), dtype=np.float32)[:, None, None]
        haze = 0.28 * (1 - self.nearness)
        pixels[..., :3] = np.clip(pixels[..., :3] * lit, 0, 255) * (1 - haze) + water * haze
        shift = np.array(self.velocity) * time + rng.normal(0, 0.4, 2)
        middle = (np.array(self.centre) + shift) * scale - brush.sprite.width / 2
        left, top = np.round(middle + box[:2]).astype(int).tolist()
        return Sprite(self.class_id, PillowImage.fromarray(pixels.astype(np.uint8)), left, top)


def visible(sprites: Sequence[Sprite], size: tuple[int, int]) -> list[tuple[Sprite, np.ndarray]]:
    """Those of the sprites that may be drawn, each with the (height, width) bool mask of what is seen of it.

    Args:
        sprites: the nearest first.
        size: of the oversampled canvas.
    """
    covered = np.zeros(size[::-1], dtype=bool)
    kept = []
    for sprite in sprites:
        silhouette = sprite.silhouette(size)
        seen = silhouette & ~covered
        area = np.count_nonzero(seen)
        if area >= MIN_VISIBLE_SHARE * sprite.area and area >= MIN_VISIBLE_AREA * OVERSAMPLING**2:
            kept.append((sprite, seen))
            covered |= silhouette
    return kept


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """xyxy around the true cells of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def draw_clip(
    class_ids: Sequence[int], num_frames: int, size: tuple[int, int], rng: np.random.Generator
) -> Iterator[Frame]:
    """Draws the near-duplicate frames of one clip.

    Args:
        class_ids: the species of each animal that passes.
        size: width and height of a frame.
        rng: the only source of chance.
    """
    canvas = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
    scale = size[1] / REFERENCE_HEIGHT * OVERSAMPLING
    surface, deep = (np.array(light) * rng.uniform(0.85, 1.15) for light in WATERS[rng.integers(len(WATERS))])
    water = ((surface + deep) / 2).astype(np.float32)
    has_floor = any(SPECIES[class_id].floor for class_id in class_ids) or rng.random() < 0.7
    backdrop = _Backdrop(canvas, scale, rng).paint(surface, deep, has_floor)
    reference = (canvas[0] / scale, canvas[1] / scale)
    animals = _place(class_ids, reference, rng)
    lens = _Lens(size, water, rng)
    for frame_index in range(num_frames):
        time = frame_index - (num_frames - 1) / 2
        kept = visible([animal.sprite(time, scale, water, rng) for animal in animals], canvas)
        picture = backdrop.copy()
        for sprite, _ in reversed(kept):
            picture.paste(sprite.pixels, (sprite.left, sprite.top), sprite.pixels)
        _bubbles(picture, scale, rng)
        boxes = np.array([tight_box(seen) for _, seen in kept], dtype=np.float64).reshape(-1, 4) / OVERSAMPLING
        ids = np.array([sprite.class_id for sprite, _ in kept], dtype=np.int64)
        yield Frame(lens.photograph(picture.reduce(OVERSAMPLING), rng), boxes, ids)


def _place(class_ids: Sequence[int], size: tuple[float, float], rng: np.random.Generator) -> list[Animal]:
    """The animals of a clip, the nearest first, apart from each other where there is room."""
    animals: list[Animal] = []
    for class_id in class_ids:
        species = SPECIES[class_id]
        rows = (0.72, 0.93) if species.floor else (0.12, 0.78)
        tries = rng.uniform((0.04, rows[0]), (0.96, rows[1]), (12, 2)) * size
        taken = np.array([animal.centre for animal in animals]).reshape(-1, 2)
        room = np.linalg.norm(tries[:, None] - taken[None], axis=2).min(axis=1, initial=42.0)
        x, y = tries[int(room.argmax())].tolist()
        flip = bool(rng.random() < 0.5)
        tilt = float(np.radians(np.clip(rng.normal(0, species.tilt), -180, 180)))
        speed = species.speed * rng.uniform(0.4, 1.6)
        heading = (np.cos(tilt) * (-1 if flip else 1), np.sin(tilt))
        if species.name == "jellyfish":
            heading = (np.sin(tilt), -np.cos(tilt))
        tint = rng.normal(1, 0.05) * rng.normal(1, 0.04, 3)
        velocity = (float(heading[0] * speed), float(heading[1] * speed * (0.2 if species.floor else 0.7)))
        phase = float(rng.uniform(0, 2 * np.pi))
        animals.append(Animal(class_id, (x, y), velocity, float(rng.random()), tilt, flip, tint, phase))
    return sorted(animals, key=lambda animal: -animal.nearness)


_STONE = np.array((100, 106, 104))
_PEBBLES = np.array(((150, 140, 120), (200, 108, 84), (204, 176, 70), (122, 84, 136)))
_WEEDS = np.array(((52, 110, 64), (96, 112, 48), (140, 66, 58), (60, 92, 88), (110, 70, 128), (170, 140, 60)))


class _Backdrop:
    """What the camera sees without animals: water, light from above, and clutter in the colours of the animals."""

    def __init__(self, canvas: tuple[int, int], scale: float, rng: np.random.Generator) -> None:
        self._canvas, self._scale, self._rng = canvas, scale, rng

    def paint(self, surface: np.ndarray, deep: np.ndarray, has_floor: bool) -> PillowImage.Image:
        width, height = self._canvas
        rng = self._rng
        picture = self._water(surface, deep)
        self._draw = ImageDraw.Draw(picture)
        horizon = height * (rng.uniform(0.6, 0.74) if has_floor else 1.0)
        for nearness in np.linspace(0.3, 0.6, int(rng.integers(0, 4))):
            far = surface * (1 - nearness) * 0.75 + deep * nearness * 0.8
            self._rock(rng.uniform(0, width), horizon, rng.uniform(16, 46), far)
        if has_floor:
            self._sand(picture, horizon, surface)
            for _ in range(rng.integers(0, 4)):
                y = rng.uniform(horizon, height * 1.05)
                self._rock(rng.uniform(0, width), y, rng.uniform(7, 24), _STONE * rng.uniform(0.75, 1.2))
            for _ in range(rng.integers(0, 8)):
                centre = rng.uniform((0, horizon), (width, height))
                self._stone(centre, rng.uniform(2, 8), 0.75, rng.choice(_PEBBLES) * rng.uniform(0.75, 1.1))
        for _ in range(rng.integers(0, 6)):
            root = rng.uniform((0, horizon), (width, height * 1.02))
            self._seaweed(root, rng.uniform(18, 66) * self._scale, rng.choice(_WEEDS) * rng.uniform(0.7, 1.1))
        return picture

    def _water(self, surface: np.ndarray, deep: np.ndarray) -> PillowImage.Image:
        width, height = self._canvas
        rng = self._rng
        depth = np.linspace(0, 1, height)[:, None, None] ** rng.uniform(0.7, 1.3)
        picture = _picture(np.broadcast_to(surface * (1 - depth) + deep * depth, (height, width, 3)))
        draw = ImageDraw.Draw(picture, "RGBA")
        for _ in range(rng.integers(0, 5)):
            x, spread, slant = rng.uniform((0, 0.03, -0.25), (1, 0.09, 0.25)) * width
            beam = np.array([(x, 0), (x + spread, 0), (x + 2 * spread + slant, height), (x - spread + slant, height)])
            draw.polygon(_corners(beam), fill=(235, 255, 250, int(rng.integers(12, 30))))
        return picture.filter(ImageFilter.BoxBlur(2 * self._scale))

    def _sand(self, picture: PillowImage.Image, horizon: float, surface: np.ndarray) -> None:
        width, height = self._canvas
        rng = self._rng
        waves = np.sin(2 * np.pi * (np.arange(width) / width * rng.uniform(0.5, 2) + rng.random()))
        is_sand = np.arange(height)[:, None] >= horizon + height * 0.02 * waves
        mask = PillowImage.fromarray(is_sand.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(height / 100))
        grains = PillowImage.fromarray(rng.standard_normal((24, 32), dtype=np.float32))
        dunes = np.asarray(grains.resize(self._canvas, PillowImage.Resampling.BICUBIC))[..., None]
        near = np.clip((np.arange(height) - horizon) / (height - horizon), 0, 1)[:, None, None]
        sand = np.array((196, 184, 146)) * rng.uniform(0.75, 1.0) * (0.35 + 0.5 * near) + surface * 0.35 * (1 - near)
        picture.paste(_picture(sand * (1 + 0.05 * dunes)), (0, 0), mask)

    def _rock(self, x: float, y: float, radius: float, colour: np.ndarray) -> None:
        for offset in self._rng.uniform(-0.7, 0.7, int(self._rng.integers(1, 4))):
            side = offset * radius * self._scale
            flatness = self._rng.uniform(0.5, 0.8)
            self._stone(np.array((x + side, y + abs(side) * 0.3)), radius * (1 - 0.4 * abs(offset)), flatness, colour)

    def _stone(self, centre: np.ndarray, radius: float, flatness: float, colour: np.ndarray) -> None:
        radii = np.array((1.0, flatness)) * radius * self._scale
        outline = rounded(ring(9) * self._rng.uniform(0.7, 1.2, (9, 1)) * radii)
        for share in np.linspace(1, 0.25, 7):
            lit = outline * share + centre - (0, radii[1] * 0.4 * (1 - share))
            self._draw.polygon(_corners(lit), fill=_rgb(colour * (0.66 + 0.6 * (1 - share))))

    def _seaweed(self, root: np.ndarray, length: float, colour: np.ndarray) -> None:
        rng = self._rng
        up = np.linspace(0, 1, 12)
        for _ in range(rng.integers(2, 6)):
            reach = length * rng.uniform(0.6, 1.0)
            sway = np.sin(up * rng.uniform(3, 7) + rng.uniform(0, 6)) * length * 0.07 + rng.normal(0, 0.2) * reach
            x, y = root[0] + rng.normal(0, 0.06) * length + sway * up, root[1] - reach * up
            half = length * 0.035 * (1 - up**2) + 1
            leaf = np.stack([np.append(x - half, (x + half)[::-1]), np.append(y, y[::-1])], axis=1)
            self._draw.polygon(_corners(leaf), fill=_rgb(colour * rng.uniform(0.8, 1.2)))


def _bubbles(picture: PillowImage.Image, scale: float, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(rng.integers(0, 6)):
        x, y, radius = rng.uniform(0, picture.width), rng.uniform(0, picture.height), rng.uniform(0.8, 2.6) * scale
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=(230, 250, 255, 36), outline=(236, 252, 255, 130)
        )


def _rgb(colour: np.ndarray) -> Colour:
    return tuple(np.clip(colour, 0, 255).astype(int).tolist())


def _corners(points: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _picture(pixels: np.ndarray) -> PillowImage.Image:
    return PillowImage.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


class _Lens:
    """What water and camera do to every frame of a clip: colour cast, haze, vignette, blur, noise."""

    def __init__(self, size: tuple[int, int], water: np.ndarray, rng: np.random.Generator) -> None:
        x, y = np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1])
        radius = np.hypot(x[None], y[:, None]) / np.sqrt(2)
        cast = np.array((rng.uniform(0.72, 1.0), rng.uniform(0.92, 1.04), rng.uniform(0.92, 1.08)))
        turbidity = rng.uniform(0.02, 0.26)
        shade = (1 - rng.uniform(0.05, 0.45) * radius**2) * rng.uniform(0.78, 1.15)
        self._gain = (shade[..., None] * cast * (1 - turbidity)).astype(np.float32)
        self._veil = (shade[..., None] * water * turbidity).astype(np.float32)
        self._blur, self._noise = float(rng.uniform(0, 0.6)), float(rng.uniform(1.5, 6))

    def photograph(self, picture: PillowImage.Image, rng: np.random.Generator) -> PillowImage.Image:
        pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(self._blur))).astype(np.float32)
        pixels = (pixels * self._gain + self._veil) * np.float32(rng.normal(1, 0.012))
        pixels += self._noise * rng.standard_normal(pixels.shape, dtype=np.float32)
        return _picture(pixels)
