"""Images on their way to the detector: each once, in order, in bounded memory; a bad one is an error of its own."""

import io
import math
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raylearn.data.images import content_hash, decode, decode_reduced
from raylearn.detectors.base import DetectorSettings
from raylearn.detectors.letterbox import letterbox
from raylearn.errors import ImageError, StorageError
from raylearn.scoring import reading
from raylearn.scoring.reading import ReadImage, batches, read_ahead, read_image

SIZE = 64


def settings(**changes: str) -> DetectorSettings:
    return DetectorSettings(SIZE, 0.05, 0.7, 300, **changes)


def jpeg(width: int, height: int) -> bytes:
    rows = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    file = io.BytesIO()
    Image.fromarray(rows.astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


DATA = jpeg(600, 400)


# --- one image


@pytest.mark.parametrize("expected_hash", ["", content_hash(DATA)])
def test_a_good_image_becomes_its_canvas_and_its_own_size(tmp_path, expected_hash):
    (tmp_path / "a.jpg").write_bytes(DATA)
    image = read_image(str(tmp_path / "a.jpg"), expected_hash, settings())
    assert (image.size, image.error) == ((600, 400), None)
    np.testing.assert_array_equal(image.canvas, letterbox(decode(DATA), SIZE))


@pytest.mark.parametrize(("canvas", "shape"), [("square", (64, 64, 3)), ("rectangle", (32, 64, 3))])
@pytest.mark.parametrize("decode", ["full", "reduced"])
def test_settings_decide_the_canvas_and_never_the_size(tmp_path, canvas, shape, decode):
    (tmp_path / "wide.jpg").write_bytes(jpeg(600, 200))
    image = read_image(str(tmp_path / "wide.jpg"), "", settings(canvas=canvas, decode=decode))
    assert (image.size, image.canvas.shape) == ((600, 200), shape)


def test_a_reduced_image_is_placed_by_the_size_of_the_whole(tmp_path):
    data = jpeg(520, 9)  # an eighth of it has two rows for what is one row of the canvas
    (tmp_path / "a.jpg").write_bytes(data)
    image = read_image(str(tmp_path / "a.jpg"), "", settings(decode="reduced"))
    assert image.size == (520, 9)
    np.testing.assert_array_equal(image.canvas, letterbox(decode_reduced(data, SIZE)[0], SIZE, "square", (520, 9)))
    rows = np.flatnonzero((image.canvas != 114).any(axis=(1, 2)))
    assert len(rows) == 1


def test_only_reduced_decoding_takes_the_short_way(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(DATA)
    asked = []
    real = reading.decode_reduced
    monkeypatch.setattr(reading, "decode_reduced", lambda data, side: asked.append(side) or real(data, side))
    for way in ("full", "reduced"):
        read_image(str(tmp_path / "a.jpg"), "", settings(decode=way))
    assert asked == [None, SIZE]


@pytest.mark.parametrize(
    ("data", "expected_hash", "kind"),
    [
        pytest.param(None, "", "missing", id="not there"),
        pytest.param(b"", "", "empty", id="0 bytes"),
        pytest.param(b"a text named .jpg", "", "not an image", id="text"),
        pytest.param(DATA[: len(DATA) // 2], "", "broken", id="cut"),
        pytest.param(DATA, content_hash(b"other"), "changed", id="changed"),
        pytest.param(DATA[:-50], content_hash(DATA), "changed", id="cut after the run began"),
    ],
)
def test_what_is_wrong_with_an_image_is_its_own_error(tmp_path, data, expected_hash, kind):
    if data is not None:
        (tmp_path / "a.jpg").write_bytes(data)
    image = read_image(str(tmp_path / "a.jpg"), expected_hash, settings())
    assert (image.canvas, image.size) == (None, (0, 0))
    assert image.error is not None
    assert image.error.kind == kind


def test_a_folder_in_the_place_of_an_image_is_its_own_error(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    image = read_image(str(tmp_path / "folder.jpg"), "", settings())
    assert image.error is not None
    assert image.error.kind == "unreadable"


# --- reading ahead


def with_size(number: int) -> ReadImage:
    return ReadImage(None, (number, number))


@given(st.integers(0, 12), st.integers(0, 5), st.integers(1, 4))
def test_images_come_in_their_order_each_with_its_own_hash(num, ahead, num_threads):
    done_last_first = [threading.Event() for _ in range(num)]

    def read(uri: str, expected: str) -> ReadImage:
        number = int(uri)
        if ahead and num_threads > 1 and number % 2 == 0 and number + 1 < num:
            done_last_first[number + 1].wait(1)  # so that the later one of a pair is finished first
        done_last_first[number].set()
        assert expected == f"hash {uri}"
        return with_size(number)

    uris = [str(number) for number in range(num)]
    with ThreadPoolExecutor(num_threads) as threads:
        images = read_ahead(uris, [f"hash {uri}" for uri in uris], read, threads, ahead)
        assert [image.size[0] for image in images] == list(range(num))


class AtOnce(Executor):
    """Runs what it is given before it takes the next: how much was given is how much was begun."""

    def submit(self, function, /, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_no_more_than_agreed_are_begun_before_they_are_asked_for(ahead):
    started: list[str] = []
    images = read_ahead(list("0123456789"), [""] * 10, lambda uri, _: started.append(uri), AtOnce(), ahead)
    assert started == []
    for taken in range(1, 11):
        next(images)
        assert len(started) == min(taken + ahead, 10)
    assert next(images, "end") == "end"


@pytest.mark.parametrize("error", [StorageError("the store is away"), ValueError("a fault of this code")])
def test_an_error_of_the_reader_ends_it_and_what_had_not_begun_never_does(error):
    started: list[int] = []
    going_on = threading.Event()

    def read(uri: str, _: str) -> ReadImage:
        started.append(int(uri))
        if uri == "1":
            raise error
        if uri == "2":
            going_on.wait(5)  # keeps the only thread from the images behind it
        return with_size(int(uri))

    with ThreadPoolExecutor(1) as threads:
        images = read_ahead([str(number) for number in range(20)], [""] * 20, read, threads, 6)
        assert next(images).size == (0, 0)
        with pytest.raises(type(error), match=str(error)):
            next(images)
        going_on.set()
    assert started in ([0, 1], [0, 1, 2])


def test_who_stops_asking_cancels_what_has_not_begun():
    started: list[str] = []
    going_on = threading.Event()

    def read(uri: str, _: str) -> ReadImage:
        started.append(uri)
        if uri == "1":
            going_on.wait(5)
        return with_size(0)

    with ThreadPoolExecutor(1) as threads:
        images = read_ahead(list("0123456789"), [""] * 10, read, threads, 5)
        next(images)
        images.close()
        going_on.set()
    assert started in (["0"], ["0", "1"])


# --- batches


def image_of(position: int, height: int) -> ReadImage:
    """A canvas whose pixels tell its position; height 0 stands for an image that could not be read."""
    if not height:
        return ReadImage(None, (0, 0), ImageError("broken"))
    return ReadImage(np.full((height, 4, 3), position % 256, np.uint8), (position, height))


@given(st.lists(st.integers(0, 9), max_size=80), st.integers(1, 7))
def test_every_readable_image_is_in_one_batch_of_its_shape(heights, batch_size):
    images = [image_of(position, height) for position, height in enumerate(heights)]
    seen = []
    for positions, canvases, sizes in batches(images, batch_size):
        assert 1 <= len(positions) == len(canvases) == len(sizes) <= batch_size
        assert positions == sorted(positions)
        for position, canvas, size in zip(positions, canvases, sizes, strict=True):
            np.testing.assert_array_equal(canvas, images[position].canvas)
            assert tuple(size) == images[position].size
        seen += positions
    assert sorted(seen) == [position for position, height in enumerate(heights) if height]


@given(st.lists(st.integers(0, 40), max_size=120), st.integers(1, 5))
def test_no_more_than_four_batches_of_images_wait(heights, batch_size):
    taken = 0

    def images():
        nonlocal taken
        for position, height in enumerate(heights):
            taken += bool(height)
            yield image_of(position, height)

    given_out = 0
    for positions, _, _ in batches(images(), batch_size):
        assert taken - given_out <= 4 * batch_size
        given_out += len(positions)


@given(st.integers(0, 50), st.integers(1, 8))
def test_images_of_one_shape_come_in_full_batches_and_in_their_order(num, batch_size):
    found = [positions for positions, _, _ in batches([image_of(n, 4) for n in range(num)], batch_size)]
    assert [position for batch in found for position in batch] == list(range(num))
    assert len(found) == math.ceil(num / batch_size)


def test_a_batch_is_given_out_as_soon_as_it_is_full():
    taken: list[int] = []

    def images():
        for position in range(10):
            taken.append(position)
            yield image_of(position, 4)

    next(batches(images(), 3))
    assert taken == [0, 1, 2]


def test_of_many_shapes_the_fullest_group_goes_first():
    heights = [1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11]  # batches of three: twelve may wait
    found = [positions for positions, _, _ in batches([image_of(n, height) for n, height in enumerate(heights)], 3)]
    assert found[0] == [2, 3]
    assert sorted(position for batch in found for position in batch) == list(range(12))
    crowded = [positions for positions, _, _ in batches([image_of(n, n % 8 + 1) for n in range(9)], 2)]
    assert crowded[0] == [0]
    assert sorted(position for batch in crowded for position in batch) == list(range(9))


def test_shapes_of_canvases_and_not_of_originals_make_a_batch(tmp_path: Path):
    for name, size in {"a.jpg": (600, 400), "b.jpg": (90, 90), "c.jpg": (40, 80)}.items():
        (tmp_path / name).write_bytes(jpeg(*size))
    images = [read_image(str(tmp_path / name), "", settings()) for name in ("a.jpg", "gone.jpg", "b.jpg", "c.jpg")]
    [(positions, canvases, sizes)] = batches(images, 8)
    assert (positions, canvases.shape) == ([0, 2, 3], (3, 64, 64, 3))
    assert sizes.tolist() == [[600, 400], [90, 90], [40, 80]]
