"""score, query and compare: every wrong question ends in exit code 2 and one line, before Ray starts."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raylearn.cli import main
from raylearn.detectors import family_named
from raylearn.detectors.base import CheckpointFacts
from raylearn.errors import CheckpointError
from raylearn.learning import cascade
from raylearn.scoring import pool_scoring, request
from raylearn.scoring.ledger import FACTS_FILE
from tests.unit.hand_made import write_ledger
from tests.unit.test_cli import call, complaints, refused, write, write_image

# by least confidence: 5.jpg first; one that could not be read
SCORES: dict[str, Any] = {f"{i}.jpg": [[0.9 - i / 10, 0.05]] for i in range(6)} | {"torn.jpg": "image is torn"}
NAMES = ["crab", "fish"]
SCORE = "score photos --checkpoint best.pt --out out"
QUERY = "query ledger --size 2 --out out"
COMPARE = "compare ledger --size 2"
CASCADE = "cascade photos --checkpoint best.pt --size 2 --out out"


class ReachedRayError(Exception):
    """All that comes before Ray went well."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Photos, a checkpoint, ledgers and lists, made once."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(3):
        write_image(folder / f"photos/{number}.png", number)
    (folder / "empty").mkdir()
    write_ledger(SCORES, folder / "ledger", part_size=3, class_names=NAMES)
    write_ledger({"a.jpg": [[0.4]]}, folder / "one_class", 1, class_names=["crab"])
    write_ledger(SCORES, folder / "of_a_run")
    write_ledger(SCORES, folder / "unfinished", class_names=NAMES)
    (folder / "unfinished" / FACTS_FILE).unlink()
    for name, text in {
        "best.pt": "\0weights",  # not text, which a checkpoint cannot be
        "text.pt": "text",
        "notes/a.md": "",
        "counts.json": '{"fish": 0, "crab": 9}',
        "eels.json": '{"crab": 1, "eel": 2}',
        "half.json": '{"crab": 1}',
        "minus.json": '{"crab": 1, "fish": -2}',
        "torn.json": '{"crab":',
        "other.csv": "name\na.jpg\n",
        "labelled.txt": "5.jpg\nelsewhere.jpg\n",
        "out_of_here.txt": "../secret.jpg\n",
        "secret_list.txt": "s3://AKIAKEY:hunter2@bucket/a.jpg\n",
    }.items():
        write(folder / name, text)
    return folder


@pytest.fixture(autouse=True)
def desk(made, tmp_path, monkeypatch) -> Path:
    """A working folder with a copy of all that; every checkpoint but text.pt is taken as read; no torch and no Ray."""

    def read(path: Path) -> CheckpointFacts:
        if path.name == "text.pt":  # what a checkpoint is, is tested with torch in tests/detectors
            raise CheckpointError(f"{path} cannot be opened as a checkpoint: invalid load key")
        return CheckpointFacts("yolov5n", tuple(NAMES), None)

    def reached(*_: Any) -> None:
        raise ReachedRayError

    monkeypatch.setattr(request, "read_checkpoint", read)
    monkeypatch.setattr(cascade, "read_checkpoint", read)
    monkeypatch.setattr(pool_scoring, "ray_session", reached)
    monkeypatch.setattr(pool_scoring, "_needs_no_ray", lambda *_: False)  # or three photos would be scored here
    for package in ("ray", "torch"):
        monkeypatch.setitem(sys.modules, package, None)  # to import it is an error
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(capsys, arguments: str) -> str:
    """What a command that went well said."""
    assert call(*shlex.split(arguments)) == 0
    output = capsys.readouterr()
    assert complaints(output.err) == ""
    return output.out


# What is right


@pytest.mark.parametrize(
    "more",
    [
        "",
        " --image-size 64 --limit 2 --shuffle-seed 1",
        " --backend torch --precision fp32 --canvas rectangle",
        " --embeddings --backend openvino --precision fp32",
        " --embeddings --precision bf16",
    ],
)
def test_a_score_that_is_right_reaches_ray(more):
    with pytest.raises(ReachedRayError):
        main(shlex.split(SCORE + more))


def test_a_query_says_what_it_chose_from_and_where_it_is(capsys):
    said = shown(capsys, f"{QUERY} --uncertainty least_confidence --exclude labelled.txt --exclude labelled.txt")
    assert said.startswith("2 of 5 images, 1 could not be read, 1 of 2 excluded ids found, 1 predicted box\n")
    for ending in ("parquet", "csv", "txt"):
        assert f"out/query.{ending}" in said
    assert pq.read_table("out/query.parquet")["image_id"].to_pylist() == ["4.jpg", "3.jpg"]


def test_a_query_is_left_out_of_the_next_one_by_its_own_files(capsys):
    shown(capsys, QUERY)
    first = set(pq.read_table("out/query.parquet")["image_id"].to_pylist())
    for ending in ("parquet", "csv"):
        shown(capsys, f"query ledger --size 4 --out next --exclude out/query.{ending}")
        assert not first & set(pq.read_table("next/query.parquet")["image_id"].to_pylist())


def test_a_query_for_boxes_leaves_labelled_images_out(capsys):
    said = shown(capsys, "query ledger --boxes 1 --labelled labelled.txt --out out")
    assert "1 of 2 excluded ids found" in said
    chosen = pq.read_table("out/query.parquet")
    assert sum(chosen["predicted_boxes"].to_pylist()) >= 1
    assert "5.jpg" not in chosen["image_id"].to_pylist()


def test_a_query_keeps_to_the_groups_of_a_table(capsys):
    Path("groups.csv").write_text("stem,group\n" + "".join(f"{number},same\n" for number in range(9)))
    within = "--group-by groups.csv --option max_per_group=1"
    shown(capsys, f"query ledger --size 1 {within} --out limited")
    said = refused(capsys, *f"query ledger --size 5 {within} --out out".split())
    assert "groups of at most 1 images each give 1: raise max_per_group, or lower --size" in said


def test_weights_come_from_the_class_counts(capsys):
    def best(more: str) -> float:
        shown(capsys, f"{QUERY} --uncertainty least_confidence {more}")
        return pq.read_table("out/query.parquet")["score"].to_pylist()[0]

    plain = best("")
    # nine crabs and no fish: (9 + 2) / 10
    assert best("--weighting inverse_frequency --class-counts counts.json") == pytest.approx(plain * 1.1)
    assert best("--weighting inverse_frequency --class-counts counts.json --weight-cap 1") == pytest.approx(plain)


def test_compare_shows_all_arms_and_with_class_counts_their_weightings(capsys):
    plain = shown(capsys, COMPARE + " --out table.csv")
    assert "images that two queries of 2 have in common, per cent" in plain
    assert len(plain.splitlines()) == 2 + 14
    assert len(Path("table.csv").read_text().splitlines()) == 1 + 14
    assert len(shown(capsys, COMPARE + " --class-counts counts.json").splitlines()) == 2 + 38


@pytest.mark.parametrize(("num_images", "size"), [(7, 1), (40, 4)])
def test_compare_asks_for_a_tenth_of_the_ledger_where_no_size_is_given(capsys, num_images, size):
    write_ledger({f"{i}.jpg": [] for i in range(num_images)}, Path("sized"), class_names=NAMES)
    assert f"two queries of {size} have" in shown(capsys, "compare sized")


# score


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("score", "Missing argument 'POOL'"),
        ("score photos --out out", "Missing option '--checkpoint'"),
        ("score photos --checkpoint best.pt", "Missing option '--out'"),
        ("score photos more --checkpoint best.pt --out out", "Got unexpected extra argument"),
        (SCORE + " --image-siz 64", "No such option: --image-siz (Possible options: "),
        ("score none --checkpoint best.pt --out out", "pool none cannot be read: No such file or directory; give a"),
        ("score none.txt --checkpoint best.pt --out out", "pool none.txt cannot be read: No such file or directory"),
        ("score empty --checkpoint best.pt --out out", "no images in empty: endings of images are "),
        ("score notes --checkpoint best.pt --out out", "no images in notes, only 1 other files: endings of images"),
        ("score 'none/*.jpg' --checkpoint best.pt --out out", "no images in none/*.jpg: "),
        (
            "score best.pt --checkpoint best.pt --out out",
            "pool best.pt is neither a folder nor a list: a list ends in .txt",
        ),
        ("score other.csv --checkpoint best.pt --out out", "list other.csv has no column uri or path or image or"),
        ("score out_of_here.txt --checkpoint best.pt --out out", "out_of_here.txt:1: ../secret.jpg leads out of ., to"),
        ("score s4://bucket/x --checkpoint best.pt --out out", "pool s4://bucket/x cannot be listed: "),
        ("score photos --checkpoint none.pt --out out", "checkpoint none.pt is not there: give a .pt file"),
        ("score photos --checkpoint photos --out out", "photos cannot be opened as a checkpoint: it is a folder"),
        ("score photos --checkpoint text.pt --out out", "text.pt cannot be opened as a checkpoint: "),
        ("score photos --checkpoint best.pt --out best.pt", "best.pt cannot be written: File exists; give another"),
        ("score photos --checkpoint best.pt --out best.pt/x", "best.pt/x cannot be written: Not a directory; give"),
        ("score photos --checkpoint best.pt --out s4://bucket/x", "s4://bucket/x cannot be written: "),
        ("score photos --checkpoint best.pt --out ledger", "ledger holds parts of a ledger, but no plan.json: give an"),
        (SCORE + " --image-size 100", "image_size 100 is not a multiple of 32: try 128"),
        (SCORE + " --image-size 8191", "image_size 8191 is not a multiple of 32: try 8192"),
        (SCORE + " --image-size 0", "'--image-size'"),
        (SCORE + " --image-size 8224", "'--image-size'"),
        (SCORE + " --confidence 1.5", "'--confidence'"),
        (SCORE + " --confidence nan", "'--confidence'"),
        (SCORE + " --iou -1", "'--iou'"),
        (SCORE + " --max-detections 0", "'--max-detections'"),
        (SCORE + " --limit 0", "'--limit'"),
        (SCORE + " --shuffle-seed -1", "'--shuffle-seed'"),
        (SCORE + " --batch-size 0", "'--batch-size'"),
        (SCORE + " --actors none", "--actors 'none' is not a number"),
        (SCORE + " --actors 4:2", "max_actors 2 is below num_actors 4"),
        (SCORE + " --gpus-per-actor -1", "'--gpus-per-actor'"),
        (SCORE + " --part-size 0", "'--part-size'"),
        (SCORE + " --canvas sqare", "'sqare' is not one of 'square', 'rectangle'"),
        (SCORE + " --decode half", "'half' is not one of 'full', 'reduced'"),
        (SCORE + " --backend openvno", "'openvno' is not one of 'auto', 'torch', 'openvino'"),
        (SCORE + " --precision fp8", "'fp8' is not one of 'auto', 'fp32', 'fp16', 'bf16'"),
        (
            SCORE + " --embeddings --backend openvino --precision bf16",
            "embeddings need backend torch, or precision fp32",
        ),
    ],
)
def test_a_score_that_cannot_be_made_is_refused_and_leaves_no_part(capsys, desk, arguments, said):
    before = sorted(desk.rglob("part-*"))
    assert said in refused(capsys, *shlex.split(arguments))
    assert sorted(desk.rglob("part-*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        "score s3://AKIAKEY:hunter2@bucket/photos --checkpoint best.pt --out out",
        "score photos --checkpoint best.pt --out s3://AKIAKEY:hunter2@bucket/ledger",
        "score secret_list.txt --checkpoint best.pt --out out",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_shown(capsys, desk, arguments):
    with pytest.raises(SystemExit):
        main(arguments.split())
    output = capsys.readouterr()
    assert "hunter2" not in output.out + output.err
    message = refused(capsys, *arguments.split())
    assert "s3://***@bucket/" in message
    assert "holds credentials" in message
    assert "give them in the environment" in message
    assert not [path for path in desk.rglob("out/*") if b"hunter2" in path.read_bytes()]


def test_embeddings_of_a_family_that_gives_none_are_refused_with_its_name(capsys, monkeypatch):
    monkeypatch.setattr(request, "family_of", lambda _: family_named("yolov5-classic"))
    assert "detector family yolov5-classic gives no embeddings" in refused(capsys, *f"{SCORE} --embeddings".split())


# query and compare

LEDGERS = {
    "none": "none is not a ledger: it has no ledger.json",
    "photos": "photos is not a ledger: it has no ledger.json",
    "unfinished": "unfinished is not a ledger: it has 1 finished parts, but is not complete; run the score command",
    "of_a_run": "of_a_run does not name its classes: query a ledger that `raylearn score` made",
    "torn": "torn/ledger.json is damaged: score into a new folder",
}


@pytest.mark.parametrize("command", ["query {} --size 2 --out out", "compare {}", "compare {} --size 2"])
@pytest.mark.parametrize("ledger", LEDGERS)
def test_what_is_no_ledger_is_refused(capsys, ledger, command):
    write(Path("torn", FACTS_FILE), "{")
    assert LEDGERS[ledger] in refused(capsys, *command.format(ledger).split())
    assert not Path("out").exists()


BOTH = [
    ("--size 0", "'--size': Input should be greater than or equal to 1"),
    ("--size ten", "'--size': Input should be a valid integer"),
    (
        "--size 7",
        "a query of 7 images, but the ledger has 6 that can be asked for (1 could not be read, 0 are",
    ),
    ("--size 6 --exclude labelled.txt", "the ledger has 5 that can be asked for (1 could not be read, 1 are excluded)"),
    ("--seed -1", "'--seed'"),
    ("--probabilities condtional", "'condtional' is not one of 'background', 'conditional', 'independent'"),
    ("--class-counts none.json", "none.json"),
    ("--class-counts empty", "class counts empty: no data set in YOLO, COCO or Pascal VOC form, and no JSON file"),
    ("--class-counts eels.json", "class counts: 'eel' is no class of the ledger; its classes are crab, fish"),
    ("--class-counts half.json", "class counts: 'fish' has no count; its classes are crab, fish"),
    ("--class-counts minus.json", "class counts minus.json: 'fish' has -2, a whole number >= 0"),
    ("--class-counts torn.json", "class counts torn.json cannot be read: "),
    ("--weight-cap -1", "'--weight-cap'"),
    ("--weight-cap nan", "'--weight-cap'"),
    ("--exclude none.txt", "image ids none.txt cannot be read: No such file or directory"),
    ("--exclude photos", "image ids photos cannot be read: Is a directory"),
    ("--exclude other.csv", "other.csv has no column image_id"),
    ("--exclude labelled.txt --exclude other.csv", "other.csv has no column image_id"),
    ("--out best.pt/x", "best.pt/x cannot be written: Not a directory; give another with --out"),
    ("--exlude labelled.txt", "No such option: --exlude (Possible options: --exclude)"),
]


@pytest.mark.parametrize("command", [QUERY, COMPARE])
@pytest.mark.parametrize(("more", "said"), BOTH, ids=[more for more, _ in BOTH])
def test_a_question_that_has_no_answer_is_refused(capsys, command, more, said):
    assert said in refused(capsys, *command.split(), *more.split())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("query", "Missing argument 'LEDGER'"),
        ("query ledger --size 2 --boxes 2 --out out", "a query is of so many images, or of so many boxes: give one"),
        ("query ledger --size 2 --out out --group-by none.csv", "none.csv cannot be read"),
        (
            "query ledger --size 2 --out out --option max_per_group=1",
            "max_per_group needs groups, and these images",
        ),
        ("query ledger --size 2 --out out --strategy diverse", "score with --embeddings"),
        ("query ledger --size 2 --out out --strategy oracle", "that nobody has made yet: for simulations only"),
        ("query ledger --out out", "a query is of so many images, or of so many boxes: give one of the two"),
        ("query ledger --size 2", "Missing option '--out'"),
        (QUERY + " --strategy randm", "unknown strategy 'randm': did you mean 'random'?"),
        (
            QUERY + " --strategy full_data",
            "strategy full_data chooses no images: known: box_count, core_set, coverage,",
        ),
        (QUERY + " --uncertainty entropi", "'entropi' is not one of 'least_confidence', 'margin', 'margin_squared', "),
        (QUERY + " --aggregation sums", "'sums' is not one of 'sum', 'max', 'mean'"),
        (QUERY + " --weighting inverse", "'inverse' is not one of 'none', 'inverse_frequency', 'inverse_sqrt'"),
        (
            QUERY + " --weighting inverse_sqrt",
            "entropy sum inverse_sqrt needs the boxes labelled so far: give --c",
        ),
        (
            QUERY + " --weighting inverse_sqrt --strategy random --class-counts counts.json",
            "weighting has no meaning with strategy random: leave it out",
        ),
        (
            QUERY + " --strategy box_count --uncertainty margin",
            "uncertainty has no meaning with strategy box_count: leave it out",
        ),
        (QUERY + " --strategy random --weight-cap 3", "weight_cap has no meaning with strategy random: leave it out"),
        (QUERY + " --weight-cap 3", "weight_cap has no meaning without a weighting: give one too, or leave it out"),
        (
            QUERY + " --weighting inverse_sqrt --class-counts counts.json --weight-cap 0",
            "the cap on class weights is 0.0: it must be above 0, or left out",
        ),
        ("query ledger --size 2 --out best.pt", "best.pt cannot be written: File exists; give another with --out"),
        (
            "query one_class --size 1 --out out --probabilities conditional",
            "probabilities `conditional` of one class are always 1, so nothing is uncertain: use `background`",
        ),
        ("compare", "Missing argument 'LEDGER'"),
        ("compare one_class --probabilities conditional", "probabilities `conditional` of one class are always 1"),
        (COMPARE + " --weighting none", "No such option: --weighting"),
        (COMPARE + " --class-counts counts.json --weight-cap 0", "the cap on class weights is 0.0: it must be above 0"),
        (COMPARE + " --weight-cap 2", "weight_cap has no meaning without weightings: give class counts too, or leave"),
        (COMPARE + " --out photos", "photos cannot be written: Is a directory; give another with --out"),
        (COMPARE + " --out none/a.csv", "none/a.csv cannot be written: No such file or directory; give another"),
    ],
)
def test_a_query_or_comparison_that_cannot_be_made_is_refused(capsys, arguments, said):
    assert said in refused(capsys, *arguments.split())
    assert not Path("out").exists()


# cascade


def test_a_cascade_that_is_right_reaches_ray_and_a_small_pool_is_said_to_be_small(capsys):
    for more in ("", " --aggregation max --weighting inverse_sqrt --class-counts counts.json", " --strategy box_count"):
        with pytest.raises(ReachedRayError):
            main(shlex.split(CASCADE + more))
        said = capsys.readouterr().out
        assert "a cascade cannot win: a query of 2 and its sample of 400 are too many of 3 images; all are" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--strategy diverse", "a cascade needs a strategy that gives each image a number, and diverse weighs images"),
        ("--strategy core_set", "core_set weighs images against each other: use `raylearn score` and `raylearn query`"),
        ("--strategy random", "strategy random is not decided by what a detector sees: a cascade gains nothing"),
        ("--strategy full_data", "strategy full_data chooses no images"),
        ("--option max_per_group=1", "a cascade cannot limit groups: leave max_per_group out"),
        ("--option aggregation=max --aggregation sum", "aggregation is given twice"),
        ("--max-miss 1.5", "'--max-miss'"),
        ("--size 0", "'--size'"),
        ("--image-size 100", "image_size 100 is not a multiple of 32: try 128"),
        ("--weighting inverse_sqrt", "entropy sum inverse_sqrt needs the boxes labelled so far"),
        ("--class-counts eels.json", "class counts: 'eel' is no class of the ledger"),
        ("--checkpoint text.pt", "text.pt cannot be opened as a checkpoint"),
        ("--exclude none.txt", "image ids none.txt cannot be read"),
    ],
)
def test_a_cascade_that_cannot_be_is_refused_before_anything_is_scored(capsys, more, said):
    assert said in refused(capsys, *CASCADE.split(), *more.split())
    assert not [path for path in Path().glob("out/**/*") if path.is_file()]


# dedup


def test_dedup_says_how_many_images_have_near_duplicates_and_lists_them_for_a_query(capsys, desk):
    # the embedding of an image says how many detections it has, but every length of it is one direction
    write_ledger(SCORES, desk / "seen", part_size=3, class_names=NAMES, embeddings=True)
    assert call("dedup", "seen", "--out", "groups.csv") == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 group of near-duplicates at distance 0.02 or less: 6 of 6 images, 6 in the largest group; one image of "
        "each leaves 1",
        "groups: groups.csv",
    ]
    grouped = "query seen --size 1 --out out --group-by groups.csv --option max_per_group=1"
    assert call(*grouped.split()) == 0
    assert "groups of at most 1 images each give 1" in refused(capsys, *grouped.replace("1 --out", "2 --out").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("dedup", "Missing argument 'LEDGER'"),
        ("dedup none", "none is not a ledger: it has no ledger.json"),
        ("dedup unfinished", "unfinished is not a ledger: it has 1 finished parts, but is not complete"),
        (
            "dedup ledger",
            "ledger holds no embeddings, by which near-duplicates are found: score with --embeddings into",
        ),
        ("dedup ledger --distance 1.5", "'--distance'"),
        ("dedup ledger --distance nan", "'--distance'"),
        ("dedup ledger --distance near", "'--distance': Input should be a valid number"),
        ("dedup seen --out photos", "photos cannot be written: Is a directory"),
        ("dedup seen --out none/a.csv", "none/a.csv cannot be written: No such file or directory"),
    ],
)
def test_near_duplicates_that_cannot_be_listed_are_refused(capsys, desk, arguments, said):
    write_ledger({"a.jpg": []}, desk / "seen", class_names=NAMES, embeddings=True)
    assert said in refused(capsys, *arguments.split())


# Help


@pytest.mark.parametrize("name", ["score", "query", "cascade", "compare", "dedup"])
def test_help_has_an_example_that_can_be_typed(capsys, name):
    assert call(name, "--help") == 0
    (example,) = re.findall(rf"Example: raylearn ({name} [^\n]*(?:\n  \S[^\n]*)?)", capsys.readouterr().out)
    if name in ("score", "cascade"):
        with pytest.raises(ReachedRayError):
            main(shlex.split(example))
    else:  # of the ledger that the example of score makes
        write_ledger({f"{i}.jpg": [] for i in range(200)}, Path("ledgers/photos"), class_names=NAMES, embeddings=True)
        assert "200" in shown(capsys, example)
