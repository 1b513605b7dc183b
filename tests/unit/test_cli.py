"""The commands: every wrong question ends in exit code 2 and one line that says what and where, before Ray starts."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from PIL import Image

import raylearn.cli
import raylearn.learning.training
from raylearn import __version__
from raylearn.cli import app, command_named, main
from raylearn.config import Experiment
from raylearn.config_files import packaged_experiments
from raylearn.data import formats, reef
from raylearn.data.images import read_bytes
from raylearn.data.lock import locked
from raylearn.project.settings import Project
from raylearn.sweep import runner, tracking

EXPERIMENT: dict[str, Any] = {
    "name": "desk",
    "dataset": {"format": "yolo", "path": "data"},
    "initial_size": 2,
    "budget": 2,
    "arms": {"query_size": [1], "controls": ["random"]},
}
COMMANDS = [
    "run",
    "init",
    "score",
    "query",
    "cascade",
    "compare",
    "dedup",
    "report",
    "export",
    "check",
    "doctor",
    "schema",
]
GROUPS = ["labels", "project"]


class ReachedTheDetectorError(Exception):
    """All that comes before Ray went well."""


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch) -> Path:
    """A working folder with e.yaml and a YOLO data set of four pool images and one test image; no torch and no Ray."""

    def reached(*_: Any) -> None:
        raise ReachedTheDetectorError

    def forbidden(*_: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(runner, "check_detector_of", reached)
    monkeypatch.setattr(raylearn.learning.training, "check_detector_of", lambda *_: None)
    monkeypatch.setattr(runner, "ray_session", forbidden)
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        split = "train" if number < 4 else "val"
        write_image(Path(f"data/images/{split}/{number}.png"), number)
        write(Path(f"data/labels/{split}/{number}.txt"), f"{number % 2} 0.5 0.5 0.5 0.5\n")
    write(Path("data/data.yaml"), "train: images/train\nval: images/val\nnames: [crab, fish]\n")
    write(Path("e.yaml"), yaml.safe_dump(EXPERIMENT))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_image(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def complaints(shown: str) -> str:
    """What stderr holds beside the lines that say what a command begins with."""
    return "".join(line for line in shown.splitlines(keepends=True) if not line.endswith(" ...\n"))


def refused(capsys, *arguments: str) -> str:
    """What one line on stderr said, after exit code 2."""
    code = call(*arguments)
    shown = capsys.readouterr()
    error = complaints(shown.err)
    assert code == 2, shown
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert error.endswith("\n")
    assert "Traceback" not in shown.out + shown.err
    return error.removeprefix("error: ").rstrip("\n")


def test_what_is_right_reaches_the_detector():
    for arguments in (["run", "e.yaml"], ["run", "e.yaml", "training.epochs=3", "--out", "somewhere"]):
        with pytest.raises(ReachedTheDetectorError):
            main(arguments)


# Commands


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rnu e.yaml", "No such command 'rnu'. Did you mean 'run'?"),
        ("train", "No such command 'train'"),
        ("run", "Missing argument 'file'"),
        ("run e.yaml --otu x", "No such option: --otu (Possible options: --out, "),
        ("run e.yaml --out", "'--out' requires an argument"),
        ("run none.yaml", "cannot read none.yaml: No such file or directory"),
        ("run data", "cannot read data: Is a directory"),
        ("run data/images/train/0.png", "data/images/train/0.png is no YAML file: "),
        ("check none.yaml", "cannot read none.yaml: No such file or directory"),
        ("schema more", "Got unexpected extra argument"),
        ("report", "Missing argument"),
        ("report none", "no results.parquet in none: run "),
        ("report none other", "--out names the folder that two or more runs are joined into: give both, or neither"),
        (
            "report none --out all",
            "--out names the folder that two or more runs are joined into: give both, or neither",
        ),
        ("report none other --out all --compare third", "--compare has no meaning with --out"),
        ("report none other --out all", "no results.parquet in none: it is not the folder of a finished run"),
        ("run e.yaml --pilot none", "--pilot has no meaning without --plan"),
        ("run e.yaml --plan --difference .01", "--difference has no meaning without --pilot"),
        ("report data", "no results.parquet in data: run "),
        ("export data --trial a --round 0 --format yolo --out x", "data has no results.parquet: it is not the folder"),
        ("export data --trial a --round -1 --format yolo --out x", "Invalid value for '--round'"),
        ("export data --trial a --round 0 --format jolo --out x", "'jolo' is not one of 'yolo', 'coco', 'voc'"),
        ("run e.yaml budget", "override 'budget' is not of the form key=value, such as training.epochs=20"),
        ("run e.yaml =1", "override '=1' is not of the form key=value"),
        ("run e.yaml budget.x=1", "override 'budget.x=1': budget is no section"),
        ("check e.yaml budget", "override 'budget' is not of the form key=value"),
        ("run e.yaml --out e.yaml", "e.yaml cannot be written: File exists"),
        ("run e.yaml --out out --store ./out", "--store and --out are both "),
        ("run e.yaml resources.gpus_per_task=2", "resources.gpus_per_task: Input should be less than or equal to 1"),
        ("run e.yaml --out e.yaml/x", "e.yaml/x cannot be written: Not a directory"),
    ],
)
def test_a_command_that_cannot_be_one_is_refused(capsys, arguments, said):
    assert said in refused(capsys, *arguments.split())


def test_a_scheduler_that_ends_the_program_is_told_how_to_go_on(capsys, monkeypatch):
    monkeypatch.setattr(raylearn.cli, "app", lambda **_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(sys, "argv", ["raylearn", "run", "e.yaml"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; the same command goes on from here\n"


def test_a_file_in_the_place_of_a_run_folder_is_refused_also_by_a_plan(capsys):
    Path("taken").write_text("")
    assert "taken is no folder: give another with --out" in refused(capsys, "run", "e.yaml", "--out", "taken", "--plan")


# Experiment files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: 'unclosed", "e.yaml is no YAML file: "),
        ("name: a\nbudget: 2\nname: b", "e.yaml is no YAML file: 'name' stands twice, also in line 3"),
        ("", "e.yaml must be a mapping of keys such as name, dataset, initial_size, budget, arms"),
        ("- a\n- list", "e.yaml must be a mapping of keys such as name, dataset, initial_size, budget, arms"),
        ("name: !!python/object/apply:os.mkdir [canary]", "e.yaml is no YAML file: could not determine a constructor"),
        ("name: !!int ''", "e.yaml is no YAML file: "),
        ("name: alone", "e.yaml: dataset is missing (and 3 more)"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(capsys, content, said):
    Path("e.yaml").write_text(content)
    assert said in refused(capsys, "run", "e.yaml")
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainig.epochs=3", "unknown key 'trainig': did you mean 'training'?"),
        ("detector.modle=yolov5n", "unknown key 'detector.modle': did you mean 'model'?"),
        ("training.options.lr=1", "training: unknown training option 'lr': did you mean 'lrf'?"),
        ("training.epochs=ten", "training.epochs: Input should be a valid integer"),
        ("training.epochs=-1", "training.epochs: Input should be greater than or equal to 1"),
        ("initial_size=0", "initial_size: Input should be greater than or equal to 1"),
        ("arms.uncertainty=[entropi]", "arms.uncertainty.0: unknown value 'entropi': did you mean 'entropy'?"),
        ("arms.aggregation=[sums]", "arms.aggregation.0: unknown value 'sums': did you mean 'sum'?"),
        (
            "arms.weighting=[inverse_freq]",
            "arms.weighting.0: unknown value 'inverse_freq': did you mean 'inverse_frequency'?",
        ),
        (
            "arms.probabilities=[backgrund]",
            "arms.probabilities.0: unknown value 'backgrund': did you mean 'background'?",
        ),
        ("arms.controls=[full]", "arms.controls.0: unknown value 'full': did you mean 'full_data'?"),
        ("dataset.format=jolo", "dataset.format: unknown value 'jolo': did you mean 'yolo'?"),
        ("dataset.path=null", "dataset: a data set in yolo format needs dataset.path"),
        ("arms.query_size=[2,4]", "budget 2 is no multiple of query_size 4"),
        ("arms.query_size=1", "arms.query_size must be a list, as in [1]"),
        ("seeds=[]", "seeds: Value should have at least 1 item"),
        ("seeds=[0,0]", "seeds: 0 stands twice in the list"),
        ("detector.image_size=100", "detector.image_size: Input should be a multiple of 32"),
        ("scoring.iou=2", "scoring.iou: Input should be less than or equal to 1"),
        ("training=3", "training must be a section of keys and values"),
        ("name=a/b", "name: String should match pattern"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_file_and_key(capsys, override, said):
    message = refused(capsys, "run", "e.yaml", override)
    assert message.startswith("e.yaml: ")
    assert said in message
    assert refused(capsys, "check", "e.yaml", override) == message
    assert not Path("runs").exists()


# What the data set or the machine cannot give


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset.path=elsewhere", "elsewhere: no such folder or data.yaml"),
        ("dataset.path=e.yaml", "e.yaml: "),
        ("dataset.format=voc", "data: a VOC data set needs the folders JPEGImages, Annotations and ImageSets/Main"),
        ("dataset.format=coco", "data"),
        ("dataset.pool=[trian]", "has no split 'trian': did you mean 'train'?"),
        ("budget=100", "initial_size 2 and budget 100 ask for 102 images, but the pool of 'data' has 4: lower budget"),
        ("detector.initial_weights=none.pt", "initial weights none.pt cannot be read: No such file or directory"),
        ("detector.initial_weights=data", "initial weights data cannot be read: Is a directory"),
    ],
)
def test_what_is_not_there_is_refused_before_ray_starts(capsys, override, said):
    assert said in refused(capsys, "run", "e.yaml", override)


def label(text: str, name: str = "1") -> Callable[[], None]:
    return lambda: Path(f"data/labels/train/{name}.txt").write_text(text) and None


def no_images() -> None:
    for image in Path("data/images/train").iterdir():
        image.unlink()


def copy_a_test_image() -> None:
    write_image(Path("data/images/train/copy.png"), 4)
    write(Path("data/labels/train/copy.txt"), "")


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "4 columns": (label("0 0.5 0.5 0.5\n"), "data/labels/train/1.txt:1: 4 columns: a box has 5"),
    "NaN": (label("0 0.5 0.5 0.5 0.5\n0 nan 0.5 0.5 0.5\n"), "data/labels/train/1.txt:2: 'nan' is not a finite number"),
    "class": (label("2 0.5 0.5 0.5 0.5\n"), "data/labels/train/1.txt:1: class id '2' is not one of 0..1"),
    "no area": (label("0 0.5 0.5 0 0.5\n"), "data/labels/train/1.txt:1: box of zero area"),
    "missing label": (
        Path("data/labels/train/1.txt").unlink,
        "data/images/train/1.png: has no label file",
    ),
    "no image": (lambda: Path("data/images/train/1.png").write_bytes(b"text"), "data/images/train/1.png: not an image"),
    "no images": (no_images, "data set 'data' has no images in its pool split"),
    "test image in pool": (copy_a_test_image, "data/images/val/4.png: test image with the same bytes as pool image"),
    "no data.yaml": (Path("data/data.yaml").unlink, "data: a YOLO data set needs a data.yaml"),
    "no classes": (
        lambda: Path("data/data.yaml").write_text("train: images/train\nval: images/val\n"),
        "data/data.yaml: names no classes: add names:",
    ),
    "a path out of the folder": (
        lambda: Path("data/data.yaml").write_text("train: ../../etc\nval: images/val\nnames: [a]\n"),
        "data/data.yaml: train: '../../etc' lies outside of",
    ),
    "hostile yaml": (
        lambda: Path("data/data.yaml").write_text("names: !!python/object/apply:os.mkdir [canary]\n"),
        "data/data.yaml:1: not valid YAML",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_data_set_is_refused_with_file_and_line_before_ray_starts(capsys, name):
    damage, said = BROKEN[name]
    damage()
    message = refused(capsys, "run", "e.yaml")
    assert said in message
    assert not Path("canary").exists()


def test_a_voc_box_of_zero_area_is_refused_with_file_and_line(capsys):
    flat = "<object><name>cell</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>3</xmax><ymax>6</ymax></bndbox></object>"
    for number, split in enumerate(["train", "val"]):
        write_image(Path(f"voc/JPEGImages/{number}.png"), number)
        write(Path(f"voc/Annotations/{number}.xml"), f"<annotation>\n{flat if number == 0 else ''}\n</annotation>")
        write(Path(f"voc/ImageSets/Main/{split}.txt"), f"{number}\n")
    message = refused(capsys, "run", "e.yaml", "dataset.format=voc", "dataset.path=voc")
    assert "voc/Annotations/0.xml:2: object 1 'cell': box of zero area: xmin 3, ymin 3, xmax 3, ymax 6" in message


def test_a_corrected_experiment_may_use_the_folder_of_a_refused_one(capsys):
    refused(capsys, "run", "e.yaml", "dataset.path=elsewhere", "--out", "out")
    refused(capsys, "run", "e.yaml", "budget=100", "--out", "out")
    with pytest.raises(ReachedTheDetectorError):
        main(["run", "e.yaml", "--out", "out"])


# Run folders


@pytest.fixture
def claimed(desk, monkeypatch) -> Path:
    """The folder of a run that was interrupted as soon as Ray started."""

    class StoppedError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StoppedError

    monkeypatch.setattr(runner, "check_detector_of", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "ray_session", stop)
        with pytest.raises(StoppedError):
            main(["run", "e.yaml", "--out", "out"])
    return desk / "out"


@pytest.mark.usefixtures("claimed")
def test_a_folder_of_another_experiment_is_refused_with_the_difference(capsys):
    message = refused(capsys, "run", "e.yaml", "training.epochs=3", "--out", "out")
    assert "holds a run with training.epochs=100, not 3: give another folder with --out" in message
    assert "seeds=" in refused(capsys, "run", "e.yaml", "seeds=[0,1]", "--out", "out")


@pytest.mark.usefixtures("claimed")
def test_a_run_goes_on_with_other_resources_and_another_question():
    with pytest.raises(AssertionError, match="Ray was started"):
        main(["run", "e.yaml", "resources.training_cpus=2", "question=Why?", "--out", "out"])


@pytest.mark.parametrize("content", ["", "- a list", "name: [", "name: mine\n", "\x00"])
def test_a_folder_with_an_experiment_of_somebody_else_is_refused_and_left_alone(capsys, content):
    write(Path("out/experiment.yaml"), content)
    assert "out" in refused(capsys, "run", "e.yaml", "--out", "out")
    assert Path("out/experiment.yaml").read_text() == content


def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(capsys):
    Path("out").mkdir()
    with locked(Path("out")):
        message = refused(capsys, "run", "e.yaml", "--out", "out")
    assert re.search(r'out is in use by \{"pid": \d+, ', message)


# check


def test_check_lists_every_problem_with_file_and_line(capsys):
    label("0 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")()
    Path("data/labels/train/2.txt").unlink()
    assert call("check", "e.yaml") == 2
    shown = capsys.readouterr()
    listed = [line for line in shown.out.splitlines() if "data/" in line]
    assert len(listed) == 3
    for place in ("labels/train/1.txt:1: ", "labels/train/1.txt:3: ", "images/train/2.png: "):
        assert any(place in line for line in listed), listed
    assert complaints(shown.err).startswith("error: ")
    assert complaints(shown.err).count("\n") == 1


def test_check_of_what_is_right_says_so_and_writes_nothing(desk, capsys):
    before = sorted(desk.rglob("*"))
    assert call("check", "e.yaml") == 0
    shown = capsys.readouterr()
    assert "4 images in the pool, 1 held out, classes crab, fish" in shown.out + shown.err
    assert sorted(desk.rglob("*")) == before


def test_check_reads_each_image_once_and_draws_no_reef(capsys, monkeypatch):
    read = []
    monkeypatch.setattr(formats, "read_bytes", lambda uri: read.append(uri) or read_bytes(uri))
    assert call("check", "e.yaml") == 0
    assert len(read) == len(set(read)) == 5
    monkeypatch.setattr(reef, "draw_split", None)
    assert call("check", "e.yaml", "dataset.format=reef", "dataset.path=null", "dataset.reef.num_pool=9") == 0
    assert "9 images in the pool, 120 held out, classes fusilier, " in capsys.readouterr().out


def test_an_experiment_that_comes_with_raylearn_is_run_by_its_name(capsys, desk):
    assert call("check", "quickstart") == 0
    assert "200 images in the pool" in capsys.readouterr().out
    assert "did you mean 'quickstart'" in refused(capsys, "check", "quickstrat")
    write(desk / "quickstart", yaml.safe_dump(EXPERIMENT))  # a file of the user's comes first
    assert call("check", "quickstart") == 0
    assert "4 images in the pool" in capsys.readouterr().out


def test_check_refuses_a_budget_that_the_pool_cannot_pay(capsys):
    assert "ask for 102 images" in refused(capsys, "check", "e.yaml", "budget=100")


# Help, schema, version


def test_help_lists_every_command_and_where_to_begin(capsys):
    for arguments in ([], ["--help"]):
        assert call(*arguments) == 0
        text = capsys.readouterr().out
        assert "raylearn run quickstart" in text
        for name in COMMANDS:
            assert re.search(rf"^ +{name} +\S", text, re.MULTILINE)


def test_every_command_is_tested_here():
    found = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    assert set(found) == {*COMMANDS, *GROUPS}


def test_the_doctor_ends_in_exit_code_1_if_there_is_a_problem(capsys):
    assert call("doctor", "e.yaml") == 1
    told = capsys.readouterr()
    assert told.out.startswith("problem: storage: e.yaml")
    assert complaints(told.err) == "error: 1 problem, listed above\n"


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_the_programs_help_says_of_a_command_what_its_own_begins_with(name):
    in_short = typer.main.get_command(app).commands[name].help  # type: ignore[attr-defined]
    assert in_short == command_named(name).help.split("\n\n")[0].replace("\n", " ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_parameters_has_help(name, capsys):
    command = command_named(name)
    assert len(command.help) > 20
    assert all(parameter.help for parameter in command.params if parameter.name != "help")
    assert call(name, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert " ".join(command.help.split("\n")[0].split()) in text


def test_help_of_run_has_an_example_that_can_be_typed(capsys):
    assert call("run", "--help") == 0
    (example,) = re.findall(r"Example: raylearn (run [^\n]*(?:\n  \S[^\n]*)?)", capsys.readouterr().out)
    words = example.split()
    assert words[0] == "run"
    assert words[1] in packaged_experiments()
    assert "=" in words[2]


def test_schema_is_json_and_that_of_experiments(capsys):
    assert call("schema", "--json") == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == Experiment.model_json_schema()
    assert set(schema["required"]) == set(EXPERIMENT)


@pytest.mark.parametrize("kind", [Experiment, Project])
def test_schema_is_a_file_with_every_key_and_its_default(kind, capsys):
    assert call("schema", *(["--project"] if kind is Project else [])) == 0
    text = capsys.readouterr().out
    content = yaml.safe_load(text)

    def compare(content: Any, model: Any) -> None:
        assert list(content) == list(model.model_fields)
        for name, field in model.model_fields.items():
            if field.is_required():
                assert content[name] is None or isinstance(content[name], dict)
            elif isinstance(content[name], dict) and field.annotation is not dict:
                compare(content[name], field.annotation) if hasattr(field.annotation, "model_fields") else None
            else:
                default = field.get_default(call_default_factory=True)
                assert content[name] == (list(default) if isinstance(default, tuple) else default)

    compare(content, kind)
    assert max(map(len, text.splitlines())) <= 120
    if kind is Experiment:
        assert "# budget:\n#   # boxes labelled after the initial set; a whole number from 1; required" in text
        assert "one of reef, yolo, coco, voc" in text


@pytest.mark.parametrize("name", ["", *COMMANDS, *GROUPS])
def test_a_short_option_asks_for_help_too(name, capsys):
    assert call(*name.split(), "-h") == 0
    assert "Usage: raylearn" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["", "project", "labels"])
def test_no_summary_is_cut(arguments, capsys):
    assert call(*arguments.split(), "--help") == 0
    assert "..." not in capsys.readouterr().out.split("Commands:")[1]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ("run e.yaml --epochs 3", "training.epochs=3)"),
        ("run e.yaml --epochs=3", "training.epochs=3)"),
        ("check --image-size 64 e.yaml", "detector.image_size=64)"),
        ("run e.yaml --confidence 0.1", "scoring.confidence=0.1 or evaluation.confidence=0.1)"),
        ("run e.yaml --seeds", "seeds=...)"),
        ("run e.yaml --nothing 3", "(see raylearn --help)"),
        ("query e.yaml --epochs 3", "(see raylearn --help)"),
    ],
)
def test_an_option_that_is_a_key_of_the_file_is_told_how_to_be_given(arguments, advice, capsys):
    assert refused(capsys, *arguments.split()).endswith(advice)


@pytest.mark.parametrize(("words", "found"), [("raylearn sc", "score"), ("raylearn run --pro", "--progress")])
def test_a_shell_completes_commands_and_their_options(words, found):
    environment = {"_RAYLEARN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", "from raylearn.cli import main; main()"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert found in done.stdout.split()


def test_version_is_that_of_the_package(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"raylearn {__version__}\n"


# Failed work, as against a wrong question


def test_a_file_system_that_fails_is_exit_code_1_in_one_line(capsys, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out/store")

    monkeypatch.setattr(runner, "open_dataset", full)
    assert call("run", "e.yaml") == 1
    assert complaints(capsys.readouterr().err) == "error: out/store: No space left on device\n"


def test_an_interrupted_run_says_how_to_go_on(capsys, monkeypatch):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "open_dataset", interrupt)
    assert call("run", "e.yaml") == 130
    assert complaints(capsys.readouterr().err).startswith("error: interrupted; the same command goes on from here")


def test_a_file_that_ends_too_early_is_exit_code_1_and_no_traceback(capsys, monkeypatch):
    def end(*_: Any) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr(runner, "open_dataset", end)
    assert call("run", "e.yaml") == 1
    assert complaints(capsys.readouterr().err).strip() == "error: input ended too early: Ran out of input"


def test_a_name_of_two_lines_is_told_in_one(capsys):
    assert refused(capsys, "run", "two\nlines.yaml") == "cannot read two lines.yaml: No such file or directory"


def test_a_tracker_that_is_not_installed_is_named_with_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "wandb" else object())
    assert refused(capsys, "run", "e.yaml", "tracking=[mlflow, wandb]") == (
        'tracking: wandb is not installed: pip install "raylearn[wandb]"'
    )
