"""The experiment file: read strictly, overridden from the command line, written back whole, refused in one line."""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn import config
from raylearn.config import Experiment
from raylearn.config_files import dump_file, load_experiment
from raylearn.data.reef import ReefSettings
from raylearn.detectors import built_in_families
from raylearn.errors import ConfigError
from raylearn.measures.aggregation import AGGREGATIONS
from raylearn.measures.uncertainty import PROBABILITIES, UNCERTAINTIES
from raylearn.measures.weighting import WEIGHTINGS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FEWEST: dict[str, Any] = {
    "name": "small",
    "dataset": {"format": "reef"},
    "initial_size": 8,
    "budget": 12,
    "arms": {"query_size": [4]},
}


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(FEWEST))
    return path


def write(path: Path, **changes: Any) -> Path:
    """The smallest experiment with values replaced by dotted key, written `section__key`."""
    content = copy.deepcopy(FEWEST)
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        section = content
        for name in parents:
            section = section.setdefault(name, {})
        section[last] = value
    path.write_text(yaml.safe_dump(content))
    return path


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading and writing


def test_the_fewest_keys_make_an_experiment(file):
    experiment = load_experiment(file)
    assert experiment.seeds == (0,)
    assert experiment.arms.controls == ("random", "full_data")
    assert experiment.training.epochs == 100


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_experiments_of_this_repository_can_be_read_and_written_back(path, tmp_path):
    experiment = load_experiment(path)
    (tmp_path / "again.yaml").write_text(dump_file(experiment))
    assert load_experiment(tmp_path / "again.yaml") == experiment


def test_what_is_written_has_every_default_and_reads_back_as_it_was(tmp_path):
    changes = {
        "question": "Wie schnell? 'so' \"oder\": # so\nund zwar?",
        "dataset": {"format": "voc", "path": "my data/voc", "pool": ["train", "val"], "bad_boxes": "drop"},
        "training__options": {"lr0": 0.01, "amp": False, "close_mosaic": 3, "optimizer": "SGD"},
        "detector__initial_weights": "weights/a.pt",
        "arms__weight_cap": 2.5,
        "scoring__pool_size": 100,
        "seeds": [3, 1],
    }
    experiment = load_experiment(write(tmp_path / "a.yaml", **changes))
    text = dump_file(experiment)
    (tmp_path / "b.yaml").write_text(text)
    assert load_experiment(tmp_path / "b.yaml") == experiment
    assert yaml.safe_load(text)["training"]["options"] == changes["training__options"]
    assert yaml.safe_load(text)["evaluation"] == {"confidence": 0.001, "iou": 0.7, "max_detections": 300}
    assert experiment.dataset.path == Path("my data/voc")


def test_an_experiment_cannot_be_changed(file):
    with pytest.raises(ValueError, match="frozen"):
        load_experiment(file).budget = 3


def test_a_file_is_read_as_utf_8_whatever_the_machine_thinks(file):
    file.write_bytes(file.read_bytes() + "question: größer?".encode())
    assert load_experiment(file).question == "größer?"


# Overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.epochs=20", lambda e: e.training.epochs == 20),
        ("seeds=[0,1]", lambda e: e.seeds == (0, 1)),
        ("arms.query_size=[2, 6]", lambda e: e.arms.query_size == (2, 6)),
        ("arms.controls=[]", lambda e: e.arms.controls == ()),
        ("scoring.pool_size=null", lambda e: e.scoring.pool_size is None),
        ("detector.initial_weights=a=b.pt", lambda e: e.detector.initial_weights == Path("a=b.pt")),
        ("dataset.reef.num_pool=50", lambda e: e.dataset.reef.num_pool == 50),
        ("training.options.lr0=0.01", lambda e: e.training.options == {"lr0": 0.01}),
        ("training={epochs: 3, batch_size: 2}", lambda e: (e.training.epochs, e.training.batch_size) == (3, 2)),
        ("question='yes: or no'", lambda e: e.question == "yes: or no"),
    ],
)
def test_an_override_replaces_a_value_also_of_a_section_that_the_file_lacks(file, override, value):
    assert value(load_experiment(file, [override]))


def test_of_two_overrides_the_later_counts(file):
    assert load_experiment(file, ["budget=8", "budget=16"]).budget == 16


def test_an_override_changes_its_own_section_only_where_two_share_an_anchor(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(FEWEST) + "scoring: &same {iou: 0.5}\nevaluation: *same\n")
    experiment = load_experiment(path, ["scoring.iou=0.9"])
    assert (experiment.scoring.iou, experiment.evaluation.iou) == (0.9, 0.5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget", "override 'budget' is not of the form key=value, such as training.epochs=20"),
        ("=3", "override '=3' is not of the form key=value, such as training.epochs=20"),
        ("budget.x=3", "override 'budget.x=3': budget is no section"),
        ("dataset.format.x=3", "override 'dataset.format.x=3': format is no section"),
        ("seeds=[0,", "override 'seeds=[0,': the value is no YAML"),
        ("seeds={a: 1, a: 2}", "override 'seeds={a: 1, a: 2}': the value is no YAML: 'a' stands twice"),
        ("seeds=!!int ''", "override \"seeds=!!int ''\": the value is no YAML"),
        ("name=!!python/object:os.system x", "override 'name=!!python/object:os.system x': the value is no YAML"),
    ],
)
def test_an_override_that_cannot_be_one_is_refused(file, override, message):
    assert refusal(file, override).startswith(message)


# Refusals


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainig.epochs=3", "unknown key 'trainig': did you mean 'training'?"),
        ("training.epoch=3", "unknown key 'training.epoch': did you mean 'epochs'?"),
        ("dataset.reef.num_pools=3", "unknown key 'dataset.reef.num_pools': did you mean 'num_pool'?"),
        ("xyz=3", "unknown key 'xyz': known: arms, budget, cost, dataset, detector,"),
        ("training.options.lr=3", "training: unknown training option 'lr': did you mean 'lrf'?"),
        ("dataset.format=yoloo", "dataset.format: unknown value 'yoloo': did you mean 'yolo'?"),
        ("dataset.bad_boxes=zzz", "dataset.bad_boxes: unknown value 'zzz': known: drop, refuse"),
        (
            "arms.uncertainty=[margin, entropie]",
            "arms.uncertainty.1: unknown value 'entropie': did you mean 'entropy'?",
        ),
        ("arms.aggregation=[avg]", "arms.aggregation.0: unknown value 'avg': "),
        ("arms.weighting=[inverse]", "arms.weighting.0: unknown value 'inverse': did you mean 'inverse_sqrt'?"),
        ("arms.probabilities=[indep]", "arms.probabilities.0: unknown value 'indep': did you mean 'independent'?"),
        ("arms.controls=[randm]", "arms.controls.0: unknown value 'randm': did you mean 'random'?"),
        ("arms.uncertainty=[3]", "arms.uncertainty.0: Input should be 'least_confidence', 'margin', "),
        ("training.epochs=many", "training.epochs: Input should be a valid integer"),
        ("training.epochs=null", "training.epochs: Input should be a valid integer"),
        ("training.epochs=-3", "training.epochs: Input should be greater than or equal to 1"),
        ("scoring.confidence=1.5", "scoring.confidence: Input should be less than or equal to 1"),
        ("scoring.confidence=.nan", "scoring.confidence: Input should be a finite number"),
        ("arms.weight_cap=.inf", "arms.weight_cap: Input should be a finite number"),
        ("training.options.lr0=.nan", "training.options.lr0"),
        ("detector.image_size=100", "detector.image_size: Input should be a multiple of 32"),
        ("dataset.reef.width=40", "dataset.reef.width: Input should be greater than or equal to 64"),
        ("name=../elsewhere", "name: String should match pattern"),
        ("name=", "name: Input should be a valid string"),
        ("training=3", "training must be a section of keys and values"),
        ("training=null", "training must be a section of keys and values"),
        ("training.options=[lr0]", "training.options must be a section of keys and values"),
        ("arms.query_size=4", "arms.query_size must be a list, as in [4]"),
        ("seeds=0", "seeds must be a list, as in [0]"),
        ("seeds=[]", "seeds: Value should have at least 1 item"),
        ("seeds=[1,0,1]", "seeds: 1 stands twice in the list: name it once"),
        ("arms.query_size={a: " + "1" * 99 + "}", "arms.query_size must be a list, as in [{'a': 1111"),
        ("dataset.reef.num_pool=1000000000000", "dataset.reef.num_pool: Input should be less than or equal to 1000000"),
        ('dataset.root="x\\0"', "dataset.root: a text with a NUL character"),
        ("seeds=[true]", "seeds: true is no value here (YAML takes yes, no, on and off for true and false"),
        ("budget=no", "budget: false is no value here (YAML takes yes, no, on and off for true and false"),
        ("seeds=[-1]", "seeds.0: Input should be greater than or equal to 0"),
        ("seeds=[4294967296]", "seeds.0: Input should be less than 4294967296"),
        ("arms.query_size=[]", "arms.query_size: Value should have at least 1 item"),
        ("arms.query_size=[0]", "arms.query_size.0: Input should be greater than or equal to 1"),
        ("arms.query_size=[4,4]", "arms.query_size: 4 stands twice in the list: name it once"),
        ("arms.aggregation=[]", "arms.aggregation: Value should have at least 1 item"),
        ("budget=13", "budget 13 is no multiple of query_size 4: arms could not be compared at its end"),
        ("scoring.pool_size=3", "scoring.pool_size 3 is less than query_size 4: raise it, or lower that"),
        (
            "primary.outcome=area over boxs",
            "primary.outcome: unknown value 'area over boxs': did you mean 'area over b",
        ),
        (
            "primary.control=randm",
            "primary.control 'randm' is none of the controls in arms.controls that choose images: did you mean ",
        ),
        (
            "primary.control=full_data",
            "primary.control 'full_data' is none of the controls in arms.controls that choose images: known: random",
        ),
        ("primary.controll=random", "unknown key 'primary.controll': did you mean 'control'?"),
        ("dataset.path=/data", "dataset: the reef data set is generated: remove dataset.path, or name another"),
        ("dataset.format=coco", "dataset: a data set in coco format needs dataset.path"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_where_and_the_nearest_spelling(file, override, message):
    assert refusal(file, override).startswith(f"{file}: {message}")


def test_what_decides_is_written_down_and_is_the_area_over_boxes_against_random_where_nothing_is_said(file):
    assert yaml.safe_load(dump_file(load_experiment(file)))["primary"] == {
        "outcome": "area over boxes",
        "control": "random",
    }
    chosen = ("arms.controls=[random, box_count]", "primary.outcome=last mAP50-95", "primary.control=box_count")
    assert load_experiment(file, chosen).primary.control == "box_count"


@pytest.mark.parametrize("controls", ["[full_data]", "[box_count]", "[]"])
def test_an_experiment_without_random_that_says_nothing_of_what_decides_can_be_read_and_written_back(file, controls):
    experiment = load_experiment(file, [f"arms.controls={controls}"])
    file.write_text(dump_file(experiment))
    assert load_experiment(file) == experiment


def test_without_controls_nothing_decides_so_any_may_be_named(file):
    assert load_experiment(file, ["arms.controls=[]", "primary.control=box_count"]).primary.control == "box_count"


def test_a_grid_of_nothing_is_refused(file):
    message = refusal(file, "arms.controls=[]", "arms.uncertainty=[]")
    assert (
        message
        == f"{file}: arms: uncertainty, strategies and controls are all empty, so there is nothing to run: name an arm"
    )


@pytest.mark.parametrize("key", FEWEST)
def test_a_key_that_must_be_there_is_named_when_it_is_missing(file, key):
    file.write_text(yaml.safe_dump({name: value for name, value in FEWEST.items() if name != key}))
    assert refusal(file) == f"{file}: {key} is missing"


def test_a_budget_is_of_images_or_of_boxes(file):
    assert not load_experiment(file, ["budget=8"]).pays_boxes
    boxes = load_experiment(file, ["budget={boxes: 16}"])
    assert (boxes.pays_boxes, boxes.budget_size) == (True, 16)
    assert "unknown key 'budget.images'" in refusal(file, "budget={boxes: 16, images: 8}")
    assert "budget.boxes: Input should be greater than or equal to 1" in refusal(file, "budget={boxes: 0}")
    assert "budget: Input should be greater than or equal to 1" in refusal(file, "budget=0")


def test_of_several_faults_the_first_is_told_and_the_others_counted(file):
    assert refusal(file, "training.epochs=0", "budget=0", "seeds=[]").endswith(" (and 2 more)")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"just words",
        b"- name: a list",
        b"name: 'unclosed",
        b"a: 1\n b: 2",
        b"\xff\xfe\x00n",
        b"\x00",
        b"name: !!int ''",
        b"name: !!timestamp x",
        b"name: !!bool x",
        b"name: 2001-99-99",
        b"[" * 1000,
        b"name: " + b"9" * 5000,
        b"? [1]\n: 2",
        b"name: *nowhere",
        b"a: &a [*a]",
        b"name: !!python/object/apply:os.system ['touch canary']",
        b"name: !!python/name:os.system ''",
        b"!!python/object/new:raylearn.config.Experiment {}",
    ],
    ids=lambda content: content[:20].decode(errors="replace"),
)
def test_a_file_that_is_no_experiment_is_refused_and_runs_nothing(file, content, monkeypatch):
    monkeypatch.chdir(file.parent)
    file.write_bytes(content)
    assert refusal(file).startswith(str(file))
    assert not (file.parent / "canary").exists()


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60) | st.text("ab:-[]{}&*!? \n'\"#0.", max_size=40).map(str.encode))
def test_random_bytes_are_refused_and_never_a_traceback(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(content)
    refusal(path)


any_value = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text("ab0=", max_size=3),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text("ab", max_size=2), values, max_size=2),
    max_leaves=4,
)
KEYS = [
    *FEWEST,
    *[
        "detector.model",
        "training.options",
        "training.options.lr0",
        "scoring.iou",
        "arms.uncertainty",
        "seeds",
        "a.b.c",
    ],
]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KEYS), any_value)
def test_any_value_anywhere_is_refused_or_taken_and_written_back_as_it_was(tmp_path_factory, key, value):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(FEWEST))
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
    try:
        experiment = load_experiment(path, [f"{key}={text}"])
    except ConfigError:
        return
    path.write_text(dump_file(experiment))
    assert load_experiment(path) == experiment


@pytest.mark.parametrize(("name", "why"), [("none.yaml", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, why):
    assert refusal(tmp_path / name) == f"cannot read {tmp_path / name}: {why}"


# The schema


def test_every_key_of_the_schema_has_a_description():
    schema = Experiment.model_json_schema()
    sections = {"Experiment": schema, **schema["$defs"]}
    keys = [(name, key, field) for name, section in sections.items() for key, field in section["properties"].items()]
    assert len(keys) > 40
    assert [f"{name}.{key}" for name, key, field in keys if not field.get("description")] == []
    assert all(section.get("description") for section in sections.values())


def test_the_schema_has_a_default_for_all_that_need_not_be_given():
    schema = Experiment.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    for section in sections:
        for key, field in section["properties"].items():
            assert (key in section.get("required", [])) or "default" in field or key == "options", key


def test_the_reef_s_bounds_are_those_of_the_generator():
    least = {"width": 64, "height": 64, "num_pool": 1, "num_test": 1, "frames_per_clip": 1, "seed": 0}
    ReefSettings(**least)
    properties = Experiment.model_json_schema()["$defs"]["ReefSection"]["properties"]
    assert {key: field["minimum"] for key, field in properties.items()} == least
    for key in least:
        with pytest.raises(ConfigError, match=key):
            ReefSettings(**{**least, key: least[key] - 1})


@pytest.mark.parametrize("family", built_in_families().values(), ids=lambda family: family.name)
def test_no_training_option_is_a_key_of_its_own_or_about_files_and_devices(family):
    elsewhere = {"epochs", "batch", "imgsz", "seed", "device", "data", "project", "name", "save", "resume", "model"}
    assert not family.training_options & elsewhere


def test_the_axes_of_the_file_are_those_of_the_query() -> None:
    assert get_args(config.Uncertainty) == tuple(UNCERTAINTIES)
    assert get_args(config.Aggregation) == AGGREGATIONS
    assert get_args(config.Weighting) == WEIGHTINGS
    assert get_args(config.Probabilities) == PROBABILITIES


def test_a_cost_is_seconds_for_an_image_and_a_box_and_absent_by_default(file):
    assert load_experiment(file).cost is None
    cost = load_experiment(file, ["cost={image: 5, box: 7}"]).cost
    assert (cost.image, cost.box) == (5, 7)
    assert load_experiment(file, ["cost.image=0", "cost.box=35"]).cost.box == 35
    assert "cost.box is missing" in refusal(file, "cost={image: 5}")
    assert "cost: image and box are both 0: give seconds, or leave cost out" in refusal(file, "cost={image: 0, box: 0}")
    assert "cost.image: Input should be greater than or equal to 0" in refusal(file, "cost={image: -1, box: 0}")
    assert "cost.box: Input should be a finite number" in refusal(file, "cost={image: 1, box: .inf}")
