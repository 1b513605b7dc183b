"""Bad and odd images, names, checkpoints and disks: each gets what it deserves, and nothing else suffers."""

import io
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raylearn.detectors.base import DetectorSettings
from raylearn.scoring.reading import read_image
from tests.faults.conftest import content_of, failed, refused_score, run_score, score_command, succeeded

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def rgb(kind: str = "JPEG", **options: object) -> bytes:
    return encoded(Image.fromarray(PIXELS), kind, **options)


def upright(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return rgb(exif=exif)


def bomb() -> bytes:
    """A PNG of 20000 x 20000 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(2501) * 20_000, 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


JPEG, PNG = rgb(), rgb("PNG")
SIXTEEN = encoded(Image.fromarray(RNG.integers(0, 65535, (40, 60), dtype=np.uint16)), "PNG")
FRAMES = [Image.fromarray(PIXELS[::-1])]

# name -> bytes, and the kind of error that its row has, or (width, height) of a row that is fine
CORPUS: dict[str, tuple[bytes, str | tuple[int, int]]] = {
    "good.jpg": (JPEG, (60, 40)),
    "good.png": (PNG, (60, 40)),
    "good.bmp": (rgb("BMP"), (60, 40)),
    "good.webp": (rgb("WEBP"), (60, 40)),
    "good.tif": (rgb("TIFF"), (60, 40)),
    "upper.JPG": (JPEG, (60, 40)),
    "empty.jpg": (b"", "empty"),
    "empty.png": (b"", "empty"),
    "text.jpg": (b"this is no image\n", "not an image"),
    "text.png": (b"this is no image\n", "not an image"),
    "html.jpg": (b"<html><body>404</body></html>", "not an image"),
    "zeros.jpg": (bytes(1000), "not an image"),
    "noise.png": (RNG.bytes(500), "not an image"),
    "pdf.jpg": (b"%PDF-1.4\n%" + bytes(100), "not an image"),
    "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    "cut-in-half.jpg": (JPEG[: len(JPEG) // 2], "broken"),
    "cut-at-the-end.jpg": (JPEG[:-2], "broken"),
    "header-only.jpg": (JPEG[:200], "broken"),
    "three-bytes.jpg": (JPEG[:3], "broken|not an image"),
    "cut-in-half.png": (PNG[: len(PNG) // 2], "broken"),
    "header-only.png": (PNG[:40], "broken|not an image"),
    "broken-data.png": (PNG[:100] + bytes(50) + PNG[150:], "broken"),
    "bomb.png": (bomb(), "too large"),
    "png-named.jpg": (PNG, (60, 40)),
    "jpeg-named.png": (JPEG, (60, 40)),
    "grey.jpg": (encoded(Image.fromarray(PIXELS[:, :, 0]), "JPEG"), (60, 40)),
    "cmyk.jpg": (encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"), (60, 40)),
    "sixteen-bit.png": (SIXTEEN, (60, 40)),
    "palette.png": (encoded(Image.fromarray(PIXELS).convert("P"), "PNG"), (60, 40)),
    "one-bit.png": (encoded(Image.fromarray(PIXELS).convert("1"), "PNG"), (60, 40)),
    "rgba.png": (encoded(Image.fromarray(PIXELS).convert("RGBA"), "PNG"), (60, 40)),
    "grey-alpha.png": (encoded(Image.fromarray(PIXELS).convert("LA"), "PNG"), (60, 40)),
    "progressive.jpg": (rgb(progressive=True), (60, 40)),
    "animated.gif": (rgb("GIF", save_all=True, append_images=FRAMES), (60, 40)),
    "animated.webp": (rgb("WEBP", save_all=True, append_images=FRAMES), (60, 40)),
    "animated.png": (rgb("PNG", save_all=True, append_images=FRAMES), (60, 40)),
    "pages.tif": (rgb("TIFF", save_all=True, append_images=FRAMES), (60, 40)),
    "turned-3.jpg": (upright(3), (60, 40)),
    "turned-6.jpg": (upright(6), (40, 60)),
    "turned-8.jpg": (upright(8), (40, 60)),
    "one-pixel.png": (encoded(Image.fromarray(PIXELS[:1, :1]), "PNG"), (1, 1)),
    "a-line.png": (encoded(Image.fromarray(PIXELS[:1]), "PNG"), (60, 1)),
    "with space.jpg": (JPEG, (60, 40)),
    "with,comma.jpg": (JPEG, (60, 40)),
    "with'quote\".jpg": (JPEG, (60, 40)),
    "näme-日本-🐟.jpg": (JPEG, (60, 40)),
    "line\nbreak.jpg": (JPEG, (60, 40)),
    "-dash.jpg": (JPEG, (60, 40)),
    "100%25?#&.jpg": (JPEG, (60, 40)),
    "=formula.jpg": (JPEG, (60, 40)),
    "one/same.jpg": (JPEG, (60, 40)),
    "two/same.jpg": (JPEG, (60, 40)),
    "same.jpg": (JPEG, (60, 40)),
    "same.png": (PNG, (60, 40)),
    "x" * 240 + ".jpg": (JPEG, (60, 40)),
}


def test_each_bad_or_odd_file_gets_its_row_and_nothing_else_suffers(trained: Path, tmp_path: Path) -> None:
    """And all of it without a network, where one can be taken away."""
    pool = tmp_path / "pool"
    for name, (content, _) in CORPUS.items():
        (pool / name).parent.mkdir(parents=True, exist_ok=True)
        (pool / name).write_bytes(content)
    (pool / "loop").symlink_to(pool, target_is_directory=True)
    (pool / "itself.jpg").symlink_to(pool / "itself.jpg")
    (pool / "again.jpg").symlink_to(pool / "good.jpg")
    (pool / "gone.jpg").symlink_to(pool / "nothing.jpg")
    os.mkfifo(pool / "pipe.jpg")
    (pool / "data.yaml").write_text("download: touch canary\n")
    (pool / "labels.cache").write_bytes(b"\x80\x04canary")
    out = tmp_path / "ledger"
    command = [*_without_network(), *score_command(pool, trained, out)]
    printed = succeeded(subprocess.run(command, capture_output=True, text=True, timeout=150, check=False))
    rows = {row["image_id"]: row for row in content_of(out)}
    special = {"itself.jpg": "unreadable|missing", "gone.jpg": "missing", "pipe.jpg": "empty"}
    expected = {name: wanted for name, (_, wanted) in CORPUS.items()} | special
    assert len(expected) >= 40
    assert set(rows) == set(expected)
    for name, wanted in expected.items():
        row = rows[name]
        if isinstance(wanted, str):
            assert row["status"] == "error", name
            assert row["error_kind"] in wanted.split("|"), (name, row["error"])
            assert row["error"], name
            assert (row["boxes"], row["width"]) == ([], 0)
        else:
            assert (row["status"], row["error"]) == ("ok", ""), name
            assert (row["width"], row["height"]) == wanted, name
            assert all(0 <= x1 <= x2 <= wanted[0] and 0 <= y1 <= y2 <= wanted[1] for x1, y1, x2, y2 in row["boxes"])
    num_errors = sum(isinstance(wanted, str) for wanted in expected.values())
    assert f"{len(expected)} images, {num_errors} errors (" in printed
    # the same picture gives the same detections, whatever its name
    same = [rows[name]["class_scores"] for name, (content, _) in CORPUS.items() if content == JPEG]
    assert all(scores == same[0] for scores in same)


def test_an_unreadable_file_is_that_images_error(tmp_path: Path) -> None:
    """As another user, since root reads everything."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(JPEG)
    secret.chmod(0)
    settings = DetectorSettings(64, 0.05, 0.7, 100)
    if os.geteuid() != 0:
        assert _kind(secret, settings) == "unreadable"
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and str(folder).startswith(str(tmp_path.parents[2])):
            folder.chmod(0o755)
    read_image(str(tmp_path / "warm.jpg"), "", settings)  # imports what another user may not be able to
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(0 if _kind(secret, settings) == "unreadable" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _kind(path: Path, settings: DetectorSettings) -> str:
    error = read_image(str(path), "", settings).error
    return error.kind if error else ""


class _Hostile:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def test_a_pool_of_which_nothing_can_be_opened_is_no_result(trained: Path, tmp_path: Path) -> None:
    pool, out = tmp_path / "list.txt", tmp_path / "ledger"
    pool.write_text("gone-1.jpg\ngone-2.jpg\ngone-3.jpg\n")
    message = failed(run_score(pool, trained, out), 1)
    assert "none of 3 images could be opened" in message
    assert "gone-1.jpg" in message
    assert not (out / "ledger.json").exists()
    assert not list(out.glob("part-*"))  # or the same command would find them done


def test_a_hostile_checkpoint_runs_no_code(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary, hostile = tmp_path / "canary", tmp_path / "hostile.pt"
    torch.save({"model": _Hostile(canary)}, hostile)
    message = refused_score(capsys, pool, hostile, tmp_path / "out")
    assert str(hostile) in message
    assert not canary.exists()


def test_the_corpus_is_scored_where_no_route_leads_out() -> None:
    alone = _without_network()
    if not alone:
        pytest.skip("no network of its own can be made here: the corpus is scored with the machine's")
    routes = subprocess.run([*alone, "ip", "route"], capture_output=True, text=True, check=True)
    assert routes.stdout == ""


def _without_network() -> list[str]:
    """Words before a command; none where the programs or the right are missing."""
    alone = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not (shutil.which("unshare") and shutil.which("ip")):
        return []
    return [] if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode else alone


def _mount(folder: Path, size: str, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={size}"]), "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk of a fixed size can be mounted here")


def test_a_full_disk_is_told_shows_nothing_half_and_is_gone_on_from(
    pool: Path, trained: Path, undisturbed: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = trained.stat().st_size + 160_000
    _mount(disk, str(size))
    try:
        message = failed(run_score(pool, trained, disk / "ledger"), 1)
        assert "No space left on device" in message
        assert not list((disk / "ledger").glob("ledger.json"))
        assert not list((disk / "ledger").glob(".*.unfinished"))
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        succeeded(run_score(pool, trained, disk / "ledger"))
        assert content_of(disk / "ledger") == content_of(undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
