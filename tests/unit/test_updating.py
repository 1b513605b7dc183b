"""A pool that lives: what is new, changed or gone, and a ledger that knows which of its rows still stand for images."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylearn.data.storage import Folder
from raylearn.errors import LedgerError
from raylearn.scoring import spill
from raylearn.scoring.freezing import Frozen, freeze
from raylearn.scoring.ledger import Ledger, add_part, map_parts, read_all_counts, read_facts, void_rows
from raylearn.scoring.manifest import SCHEMA, Span
from raylearn.scoring.pipeline import finish
from raylearn.scoring.updating import (
    Changes,
    Listings,
    changes_between,
    only_new,
    read_listings,
    rows_before,
    update_of,
)
from tests.unit.hand_made import make_rows

Pool = dict[str, str]
"""Image id -> version."""
POOLS = st.dictionaries(st.sampled_from([f"{name}.jpg" for name in "abcdefghijklmnop"]), st.sampled_from("123"))


def frozen(pool: Pool, directory: Path, part_size: int = 3) -> Frozen:
    directory.mkdir()
    ids = list(pool)
    table = pa.table([ids, [f"/data/{name}" for name in ids], [""] * len(ids), list(pool.values())], schema=SCHEMA)
    return freeze([table], directory, part_size)


def record_of(listed: Frozen) -> dict[str, object]:
    span = listed.span
    return {"format": 2, "manifest": listed.hash(), "num_images": span.num_images, "part_size": span.part_size}


def changes(before: Pool, now: Pool, place: Path) -> Changes:
    old, new = frozen(before, place / "old"), frozen(now, place / "now")
    folder = Folder.at(place / "pass")
    old.put_into(folder)
    listings = read_listings(folder, record_of(old))
    return changes_between(rows_before(folder, listings, listings.parts), new, listings.num_rows)


@settings(deadline=None, max_examples=60)
@given(POOLS, POOLS)
def test_changes_are_those_that_sets_of_ids_give(before, now):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(spill, "_ROWS_PER_BUCKET", 4)
        found = changes(before, now, Path(name))
    added = [image_id for image_id in now if image_id not in before]
    changed = [image_id for image_id in now if image_id in before and now[image_id] != before[image_id]]
    removed = [image_id for image_id in before if image_id not in now]
    assert (found.num_added, found.num_changed, found.num_removed) == (len(added), len(changed), len(removed))
    firsts = {"added": added, "changed": changed, "removed": removed}
    assert found.first == {kind: names[0] for kind, names in firsts.items() if names}
    assert [list(now)[i] for i in np.flatnonzero(found.is_new)] == [i for i in now if i in added or i in changed]
    void = {(row["part"], row["row"]): row["kind"] for row in found.void.to_pylist()}
    kinds = dict.fromkeys(removed, "removed") | dict.fromkeys(changed, "replaced")
    assert void == {(p // 3, p % 3): kinds[i] for p, i in enumerate(before) if i in kinds}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"a": "1", "b": "2", "c": "3", "e": "5", "f": "6"}, "2 added (the first 'e')"),
        ({"c": "3"}, "2 removed (the first 'a')"),
        ({"a": "1", "b": "9", "c": "9"}, "2 changed (the first 'b')"),
        (
            {"d": "4", "b": "2", "c": "9"},
            "1 added (the first 'd'), 1 removed (the first 'a'), 1 changed (the first 'c')",
        ),
        ({"b": "2", "a": "1", "c": "3"}, "the same images in another order"),
    ],
    ids=["added", "removed", "changed", "all three", "order"],
)
def test_a_difference_is_told_with_its_first_example(tmp_path, now, told):
    assert changes({"a": "1", "b": "2", "c": "3"}, now, tmp_path).in_words == told


def test_an_image_is_another_by_its_content_else_by_its_version_else_by_its_address(tmp_path):
    rows = {  # id: (uri, content, version) before and after
        "touched": (("u", "c", "1"), ("u", "c", "2")),
        "moved": (("u", "", "1"), ("v", "", "1")),
        "edited": (("u", "c", "1"), ("u", "d", "1")),
        "replaced": (("u", "", "1"), ("u", "", "2")),
        "elsewhere": (("s3://u", "", ""), ("s3://v", "", "")),
        "hashed since": (("u", "", "1"), ("u", "c", "1")),
        "known since": (("s3://u", "", ""), ("s3://u", "c", "")),
    }
    tables = [
        pa.table([list(rows), *zip(*(pair[side] for pair in rows.values()), strict=True)], schema=SCHEMA)
        for side in (0, 1)
    ]
    (tmp_path / "now").mkdir()
    found = changes_between([(0, np.arange(7), tables[0])], freeze([tables[1]], tmp_path / "now"), 7)
    assert [list(rows)[i] for i in np.flatnonzero(found.is_new)] == ["edited", "replaced", "elsewhere", "known since"]


class Living:
    """A pass whose detector sees one thing in each image: its version."""

    def __init__(self, place: Path, pool: Pool) -> None:
        self.place, self.folder, self.count = place, Folder.at(place / "pass"), 0
        listed = frozen(pool, place / "first")
        listed.put_into(self.folder)
        self.record = record_of(listed)

    @property
    def listings(self) -> Listings:
        return read_listings(self.folder, self.record)

    def update(self, pool: Pool, done: set[int]) -> None:
        self.count += 1
        place = self.place / f"update-{self.count}"
        place.mkdir()
        now, listings = frozen(pool, place / "now"), self.listings
        done &= set(listings.parts)
        found = changes_between(rows_before(self.folder, listings, sorted(done)), now, listings.num_rows)
        (place / "new").mkdir()
        new = freeze(only_new(now, found), place / "new", 2, Span(listings.end, suffix=f"u{self.count}"))
        update = update_of(self.folder, listings, found, new, done, {"pool": "here"})
        update.begin(self.folder)
        assert update.updated == self.listings

    def score(self, parts: list[int]) -> None:
        for part, _, table in rows_before(self.folder, Listings(self.listings.spans, ""), parts):
            seen = {row["image_id"]: [[float(row["version"]) / 10, 0.0]] for row in table.to_pylist()}
            add_part(self.folder, part, "key", make_rows(seen))

    def finish(self) -> dict[str, float]:
        counts = read_all_counts(self.folder, self.listings.parts, "key")
        finish(self.folder, self.listings, counts, {"class_names": ["crab", "fish"]})
        facts = read_facts(self.folder)
        listed = map_parts(self.folder, facts, ["image_id"], lambda table: table["image_id"].to_pylist())
        assert sorted(name for names in listed for name in names) == sorted(self.seen)
        assert facts["num_images"] == facts["num_detections"] == len(self.seen)
        return self.seen

    @property
    def seen(self) -> dict[str, float]:
        ledger = Ledger.read(self.folder)
        return dict(zip(ledger.image_ids.tolist(), (10 * ledger.class_scores[:, 0]).round().tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(st.lists(POOLS.filter(bool), min_size=1, max_size=4), st.data())
def test_a_ledger_that_was_updated_holds_what_a_new_one_would(pools, data):
    """However much was done between the updates, and whatever a late writer adds to a part that nobody waits for."""
    with tempfile.TemporaryDirectory() as name:
        living = Living(Path(name), pools[0])
        done: set[int] = set()
        for pool in pools[1:]:
            parts = living.listings.parts
            now = data.draw(st.sets(st.sampled_from(parts))) if parts else set()
            living.score(sorted(now - done))
            late = sorted(set(parts) - done - now)
            done |= now
            living.update(pool, set(done))
            if late and data.draw(st.booleans()):
                living.score(late[:1])
        living.score(sorted(set(living.listings.parts) - done))
        assert living.finish() == {image_id: float(version) for image_id, version in pools[-1].items()}


def test_a_finished_ledger_answers_as_before_until_its_update_is_finished(tmp_path):
    living = Living(tmp_path, {"a": "1", "b": "2", "c": "3", "d": "1"})
    living.score([0, 1])
    before = living.finish()
    living.update({"a": "2", "c": "3"}, {0, 1})
    ledger = Ledger.read(living.folder)
    assert (
        dict(zip(ledger.image_ids.tolist(), (10 * ledger.class_scores[:, 0]).round().tolist(), strict=True)) == before
    )
    living.score([2])
    assert living.finish() == {"a": 2.0, "c": 3.0}
    facts = read_facts(living.folder)
    assert {name: facts[name] for name in ("num_parts", "update", "abandoned", "num_images")} == {
        "num_parts": 3,
        "update": 1,
        "abandoned": [],
        "num_images": 2,
    }
    assert {part: rows.tolist() for part, rows in void_rows(living.folder, facts["void"]).items()} == {
        0: [0, 1],
        1: [0],
    }


def test_a_part_that_is_lost_after_its_rows_were_void_is_abandoned_with_them(tmp_path):
    living = Living(tmp_path, {"a": "1", "b": "1", "c": "1", "d": "1"})
    living.score([0, 1])
    living.finish()
    living.update({"b": "1", "c": "1", "d": "1"}, {0, 1})
    living.finish()
    (tmp_path / "pass" / "part-00000.parquet").unlink()
    living.update({"b": "1", "c": "1", "d": "1", "e": "1"}, {1})
    living.score([2, 3])
    living.score([0])  # by a writer that comes late
    assert living.finish() == dict.fromkeys("bcde", 1.0)


def test_of_two_updates_at_once_one_is_begun_and_the_other_changes_nothing(tmp_path):
    living = Living(tmp_path, {"a": "1"})
    living.score([0])
    listings, updates = living.listings, []
    for name, pool in (("one", {"a": "1", "b": "2"}), ("other", {"c": "3"})):
        place = tmp_path / name
        place.mkdir()
        now = frozen(pool, place / "now")
        found = changes_between(rows_before(living.folder, listings, [0]), now, 1)
        (place / "new").mkdir()
        new = freeze(only_new(now, found), place / "new", 2, Span(listings.end, suffix=name))
        updates.append(update_of(living.folder, listings, found, new, {0}, {"pool": name}))
    updates[0].begin(living.folder)
    with pytest.raises(LedgerError, match="was written by another run at the same time"):
        updates[1].begin(living.folder)
    living.score([1])
    assert living.finish() == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"listing": "x", "start": "0"}'])
def test_a_damaged_update_is_named(tmp_path, text):
    living = Living(tmp_path, {"a": "1"})
    (living.folder.path / "update-0001.json").write_text(text)  # type: ignore[operator]
    with pytest.raises(LedgerError, match=r"update-0001\.json is damaged, or of another program"):
        living.listings  # noqa: B018


def test_lost_void_rows_are_told_and_not_taken_for_none(tmp_path):
    living = Living(tmp_path, {"a": "1", "b": "2"})
    living.score([0])
    living.update({"a": "1"}, {0})
    living.finish()
    (tmp_path / "pass" / "void-0001-u1.parquet").unlink()
    with pytest.raises(LedgerError, match=r"void-0001-u1\.parquet is damaged or not there"):
        Ledger.read(living.folder)


def test_a_ledger_of_a_later_raylearn_is_refused(tmp_path):
    (tmp_path / "ledger.json").write_text(json.dumps({"format": 3, "num_parts": 1, "num_images": 1}))
    with pytest.raises(LedgerError, match=r"written by a later raylearn, in format 3: this one reads up to 2"):
        read_facts(Folder.at(tmp_path))
