"""Draws the clips of the data set "reef": a fixed camera under water, and the animals that pass it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

from raylearn.data.reef_species import SPECIES, Brush, Colour, corners_of, ring, rounded

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
            draw.polygon(corners_of(beam), fill=(235, 255, 250, int(rng.integers(12, 30))))
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
            self._draw.polygon(corners_of(lit), fill=_rgb(colour * (0.66 + 0.6 * (1 - share))))

    def _seaweed(self, root: np.ndarray, length: float, colour: np.ndarray) -> None:
        rng = self._rng
        up = np.linspace(0, 1, 12)
        for _ in range(rng.integers(2, 6)):
            reach = length * rng.uniform(0.6, 1.0)
            sway = np.sin(up * rng.uniform(3, 7) + rng.uniform(0, 6)) * length * 0.07 + rng.normal(0, 0.2) * reach
            x, y = root[0] + rng.normal(0, 0.06) * length + sway * up, root[1] - reach * up
            half = length * 0.035 * (1 - up**2) + 1
            leaf = np.stack([np.append(x - half, (x + half)[::-1]), np.append(y, y[::-1])], axis=1)
            self._draw.polygon(corners_of(leaf), fill=_rgb(colour * rng.uniform(0.8, 1.2)))


def _bubbles(picture: PillowImage.Image, scale: float, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(rng.integers(0, 6)):
        x, y, radius = rng.uniform(0, picture.width), rng.uniform(0, picture.height), rng.uniform(0.8, 2.6) * scale
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=(230, 250, 255, 36), outline=(236, 252, 255, 130)
        )


def _rgb(colour: np.ndarray) -> Colour:
    return tuple(np.clip(colour, 0, 255).astype(int).tolist())


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
