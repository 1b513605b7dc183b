"""One training by Ultralytics' own trainer, on a private copy of the labelled set."""

import tempfile
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import yaml

from raylearn.data.dataset import GroundTruth, Image
from raylearn.data.images import content_hash, decode, is_heif, read_bytes
from raylearn.detectors.base import TrainingSet
from raylearn.detectors.checkpoints import first_line
from raylearn.detectors.families.ultralytics.isolation import isolate_ultralytics
from raylearn.detectors.families.ultralytics.loader import TrainingLoader
from raylearn.errors import DatasetError, DetectorError, DivergedError, RaylearnError
from raylearn.progress import steps

isolate_ultralytics()

from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402


def train_model(
    model: Any,
    train: TrainingSet,
    arguments: Mapping[str, Any],
    limit_threads: Callable[[], None],
    num_workers: int,
) -> torch.nn.Module:
    """Trains `model` and returns the moving average of its weights, which is what Ultralytics saves.

    Args:
        model: an untrained or partly trained network of Ultralytics'.
        train: the labelled set.
        arguments: Ultralytics' training arguments, among them seed and device.
        limit_threads: called when Ultralytics has set torch's threads.
        num_workers: processes that load and augment images, which end with the training; 0 does so in this one. The
            result is the same.

    Raises:
        DetectorError: a precision that is not to be had here.
        DivergedError: the loss or a weight is not finite.
        RaylearnError: the batch did not fit into memory, or a loader worker was ended from outside.
    """
    torch.backends.cudnn.allow_tf32 = False  # otherwise a GPU's convolutions keep ten bits of each number
    with tempfile.TemporaryDirectory(prefix="raylearn-training-") as name:
        folder = Path(name)
        trainer = _Trainer(
            model,
            {
                "amp": False,
                **arguments,
                **_FIXED,
                "data": str(write_data_yaml(train, folder)),
                "project": name,
                "name": "run",
            },
            limit_threads,
            num_workers,
        )
        try:
            trainer.train()
        except RuntimeError as error:
            if "NaN" in str(error):
                raise DivergedError(f"the training diverged: {error}") from error
            if "DataLoader worker (pid" in str(error):
                raise RaylearnError(
                    f"a loader worker was lost ({first_line(error)}): give it more memory or /dev/shm, "
                    "or lower resources.training_cpus"
                ) from error
            raise
    trained: torch.nn.Module = trainer.ema.ema
    if not all(torch.isfinite(tensor).all() for tensor in trained.state_dict().values()):
        raise DivergedError("the training diverged: a weight is not finite; lower training.options.lr0")
    trained.criterion = None
    return trained


# Validation, plots and checkpoints during training cost time and are not used: the held-out split is measured after it.
_FIXED = {
    "val": False,
    "plots": False,
    "save": False,
    "verbose": False,
    "exist_ok": True,
    "patience": 0,
    "cache": "ram",
    "workers": 0,  # of its own loader, which is not used
    "pretrained": False,
    "deterministic": True,
}


class _Trainer(DetectionTrainer):  # type: ignore[misc]
    """Ultralytics' trainer, given its model, without what an active-learning round has no use for."""

    train_loader: TrainingLoader | None = None

    def __init__(
        self, model: Any, overrides: dict[str, Any], limit_threads: Callable[[], None], num_workers: int
    ) -> None:
        super().__init__(overrides={**overrides, "model": "yolov5n.yaml", "task": "detect", "mode": "train"})
        # Ultralytics tries AMP with a model that it downloads, so what is learned would depend on the network.
        self._precision, self.args.amp = self.args.amp, False
        self._batch_size = self.batch_size
        if self.device.type == "cpu" and self._precision not in (False, "fp32", "bf16"):
            raise DetectorError(f"training.options.amp={self._precision} needs a GPU: on a CPU, leave it out, or bf16")
        self.model = model.to(memory_format=torch.channels_last)  # a sixth faster on CPUs; Ultralytics does so on GPUs
        self._num_workers = num_workers
        self.add_callback("on_train_start", lambda _: limit_threads())
        self.add_callback("on_train_epoch_start", lambda trainer: steps("epoch", trainer.epoch, trainer.epochs))
        self.add_callback("teardown", lambda _: self._end_workers())  # Ultralytics leaves them to a failed training

    def _end_workers(self) -> None:
        if self.train_loader is not None:
            self.train_loader.close()

    def _setup_train(self) -> None:
        super()._setup_train()
        if self.device.type == "cuda" and self._precision not in (False, "fp32"):
            self.args.amp, self.amp = self._precision, True
            self.scaler = torch.amp.GradScaler("cuda", enabled=self._precision != "bf16")

    def _build_train_pipeline(self) -> None:
        # Ultralytics halves a batch that does not fit and goes on, which would make results depend on the machine.
        if self.batch_size != self._batch_size:
            raise RaylearnError(
                f"batch_size {self._batch_size} does not fit into memory: lower training.batch_size, or raise "
                "resources.gpus_per_task if trainings share a GPU"
            )
        super()._build_train_pipeline()

    def get_dataset(self) -> dict[str, Any]:
        # The file is our own: read plainly, so that nothing is looked up, downloaded or executed on the way.
        data = yaml.safe_load(Path(self.args.data).read_text())
        return {**data, "path": Path(data["path"]), "nc": len(data["names"]), "channels": 3}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        dataset = super().build_dataset(img_path, mode, batch)
        given = len(list(Path(img_path).iterdir()))
        if len(dataset) != given:
            raise RaylearnError(f"Ultralytics leaves out {given - len(dataset)} of {given} training images: check them")
        if dataset.cache != "ram":
            # Too little memory to keep the images. The mosaic would then draw from those that its own process has read
            # lately; so it is told that they are there, and each is read when it is asked for.
            dataset.cache = "ram"
            dataset.transforms = dataset.build_transforms(copy(self.args))
        return dataset

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:  # noqa: ARG002
        if mode == "val":
            return self.train_loader  # nothing is validated, so the same images are not read and kept twice
        return TrainingLoader(
            self.build_dataset(dataset_path, mode, batch_size),
            batch_size,
            seed=self.args.seed,
            num_workers=self._num_workers,
            current_epoch=lambda: self.epoch,
            pin_memory=self.device.type == "cuda",
        )

    def build_optimizer(self, *arguments: Any, **options: Any) -> Any:
        optimizer = super().build_optimizer(*arguments, **options)
        # One pass over each tensor where there were ten calls. AdamW is an Adam too; on GPUs Ultralytics does so.
        if self.device.type == "cpu" and isinstance(optimizer, torch.optim.Adam):
            for group in optimizer.param_groups:
                group["fused"] = True
        return optimizer

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        if self.device.type == "cpu" and self._precision == "bf16":
            # Ultralytics' autocast, in which this is called and which restores what was, refuses bf16 on CPUs.
            torch.set_autocast_dtype("cpu", torch.bfloat16)
            torch.set_autocast_enabled("cpu", True)
        return batch

    def validate(self) -> tuple[dict[str, float], float]:
        return {}, 0.0

    def save_model(self) -> bool:
        return False

    def final_eval(self) -> None:
        pass


def write_data_yaml(train: TrainingSet, folder: Path) -> Path:
    """Writes the labelled set in YOLO layout: links to the images, label files of its own."""
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for index, image in enumerate(sorted(train.images, key=lambda image: image.image_id)):
        _place(image, folder / "images", f"{index:07d}{Path(image.image_id).suffix.lower()}")
        (folder / "labels" / f"{index:07d}.txt").write_text(_label_rows(image, train.truth[image.image_id]))
    path = folder / "data.yaml"
    images = str(folder / "images")
    names = dict(enumerate(train.class_names))
    path.write_text(yaml.safe_dump({"path": str(folder), "train": images, "val": images, "names": names}))
    return path


def _place(image: Image, folder: Path, name: str) -> None:
    """Makes an image's bytes appear under a name: a link where that is safe; of what Ultralytics cannot read, a PNG."""
    target = folder / name
    source, data = Path(image.uri), read_bytes(image.uri)
    if content_hash(data) != image.content_hash:
        raise DatasetError(f"image {image.uri!r} changed since the run began: start a new run")
    if is_heif(data):
        PIL.Image.fromarray(decode(data)).save(target.with_suffix(".png"))
    elif not source.is_file() or (source.suffix.lower() in (".jpg", ".jpeg") and not data.endswith(b"\xff\xd9")):
        target.write_bytes(data)  # a copy: Ultralytics rewrites a JPEG without its end marker in place
    else:
        target.symlink_to(source.resolve())


def _label_rows(image: Image, truth: GroundTruth) -> str:
    size = (image.width, image.height, image.width, image.height)
    left, top, right, bottom = (truth.boxes / size).clip(0, 1).T
    rows = zip(truth.class_ids, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, strict=True)
    return "".join(f"{int(c)} {x:.9f} {y:.9f} {w:.9f} {h:.9f}\n" for c, x, y, w, h in rows)
