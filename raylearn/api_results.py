"""What the functions of `raylearn.api` give back: objects to print, to go on with, or to turn into a table."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylearn.data.storage import Folder, reason_of, write_whole
from raylearn.detectors.base import Detections
from raylearn.errors import ExportError, QueryError, RunFolderError
from raylearn.handoff.comparison import show_comparison
from raylearn.handoff.dataset_folder import check_export, reading_root, write_dataset
from raylearn.handoff.dataset_forms import Format
from raylearn.handoff.exchange import Tool
from raylearn.handoff.export import check_handout, export_query
from raylearn.handoff.query_files import query_table, refuse_another_query, write_query
from raylearn.learning.ledger_answer import CONFIDENCE, LedgerQuery
from raylearn.learning.ledger_query import class_names, counts_by_class, detections_of, files_of
from raylearn.learning.near_duplicates import NearDuplicates, near_duplicates_of
from raylearn.learning.pictures import waiting_query
from raylearn.measures.missed import in_words
from raylearn.measures.near_duplicates import NEAR
from raylearn.scoring.ledger import Ledger, read_facts
from raylearn.strategies import Context, Strategy
from raylearn.strategies.meaning import doubt_of_pool
from raylearn.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from raylearn.learning.cascade import CascadeFacts
    from raylearn.sweep.runner import Outcome


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The folder of a run, on a disk or at an address.

    Args:
        folder: holds results.parquet, queries.parquet, report.html and the settings.
        outcome: what the call that gave this did; None of a run that was only opened.
    """

    folder: Folder
    outcome: "Outcome | None" = None

    @cached_property
    def results(self) -> "pd.DataFrame":
        """results.parquet: one row per trial and round."""
        return self._table("results.parquet").to_pandas()

    @cached_property
    def queries(self) -> "pd.DataFrame":
        """queries.parquet: every image that was asked for, with its trial, round, rank and score."""
        return self._table("queries.parquet").to_pandas()

    @property
    def answer(self) -> str:
        """What the run found: the sentences that open its page, and its table of arms."""
        from raylearn.reporting.page import answer_lines
        from raylearn.sweep.run_folder import on_disk

        with on_disk(self.folder) as files:
            return "\n".join(answer_lines(files))

    @property
    def report(self) -> str:
        """The path or address of the page."""
        return self.folder.address_of("report.html")

    def export(
        self,
        trial: str,
        round: int,
        format: Format,
        out: str | Path,
        *,
        link: bool = False,
        overrides: Sequence[str] = (),
        **settings: Any,
    ) -> "ExportedSet":
        """Writes what a trial had labelled by a round as a data set of its own; see `raylearn.export`."""
        from raylearn.sweep.labelled_set import QUERIES_COLUMNS, RESULTS_COLUMNS, labelled_set
        from raylearn.sweep.run_folder import on_disk

        check_export(format, out)
        results = self._table("results.parquet", RESULTS_COLUMNS).to_pylist()
        queries = self._table("queries.parquet", QUERIES_COLUMNS).to_pylist()
        with on_disk(self.folder) as files:
            found = labelled_set(files, results, queries, trial, round, overrides=overrides, settings=settings)
            if link and self.folder.path is None and found.dataset_is_made:
                raise ExportError("the images of this run are drawn for the export and kept nowhere: leave --link out")
            about = {"run": str(self.folder), **found.facts}
            rounds = {image_id: {"round": labelled_for} for image_id, labelled_for in found.rounds.items()}
            folder = write_dataset(found.dataset, format, out, link=link, about=about, about_images=rounds)
        return ExportedSet(folder, about, reading_root(found.dataset, folder) if link else None)

    def __str__(self) -> str:
        results = self._table("results.parquet")
        trials = len(set(results["trial"].to_pylist()))
        return f"run in {self.folder}: {counted(trials, 'trial')}, {counted(results.num_rows, 'round')}"

    __repr__ = __str__

    def _table(self, name: str, columns: Sequence[str] = ()) -> pa.Table:
        content = self.folder.read(name)
        if content is None:
            raise RunFolderError(f"{self.folder} has no {name}: it is not the folder of a run, or of one not finished")
        try:
            table = pq.read_table(pa.BufferReader(content))
        except pa.ArrowException as error:
            raise RunFolderError(f"{self.folder}/{name} is damaged ({reason_of(error)}): run it again") from error
        lacking = [column for column in columns if column not in table.column_names]
        if lacking:
            raise RunFolderError(f"{self.folder}/{name} has no column {lacking[0]}: it is not the table of a run")
        return table


@dataclass(frozen=True, eq=False, repr=False)
class ExportedSet:
    """The labelled set of a trial, as a data set of its own.

    Args:
        folder: of the data set.
        facts: which set it is, what it was made from, and the balance of its classes before and after.
        root: what to read it with as `root`, where its images are links.
    """

    folder: Path
    facts: Mapping[str, Any]
    root: Path | None = None

    @property
    def balance(self) -> "pd.DataFrame":
        """Boxes of each class in the whole pool and in the exported set, and their share of all."""
        import pandas as pd

        table = pd.DataFrame(self.facts["num_boxes"]).set_index("class")
        shares = table / table.sum().clip(lower=1)
        return table.join(shares, rsuffix="_share")

    def __str__(self) -> str:
        images, lines = self.facts["num_images"], self.facts["num_boxes"]
        total = {part: max(1, sum(line[part] for line in lines)) for part in ("pool", "exported")}
        width = max(len("class"), *(len(line["class"]) for line in lines))
        shown = [
            f"{self.facts['trial']}, round {self.facts['round']}: {images['exported']:,} of {images['pool']:,} images, "
            f"{images['test']:,} held out",
            f"{'class':<{width}}{'pool':>18}{'exported':>18}",
        ]
        for line in lines:
            parts = (f"{line[part]:>9,}{line[part] / of:>9.1%}" for part, of in total.items())
            shown.append(f"{line['class']:<{width}}{''.join(parts)}")
        return "\n".join(shown)

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class ScoredPool:
    """A finished ledger: every detection of a pool of images, from which queries are arithmetic.

    Args:
        folder: of the ledger, on a disk or at an address.
        facts: what made it, and how many images, detections and errors it holds.
    """

    folder: Folder
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Folder) -> "ScoredPool":
        """Raises LedgerError where there is no finished ledger."""
        return cls(folder, read_facts(folder))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Position is the class id."""
        return tuple(class_names(self.facts, self.folder))

    def read(self) -> Ledger:
        """All of it in memory: image ids, offsets, boxes and class scores as numpy arrays, ordered by image id."""
        return Ledger.read(self.folder)

    def detections(self, image_ids: Sequence[str]) -> dict[str, Detections]:
        """The boxes and class scores of some images, by image id."""
        return {image_id: found for image_id, (_, found) in detections_of(self.folder, image_ids).items()}

    def near_duplicates(
        self, distance: float = NEAR, *, on_part: Callable[[int, int], None] = lambda _done, _total: None
    ) -> NearDuplicates:
        """The groups of images that are nearly the same; see `raylearn.dedup`."""
        return near_duplicates_of(self.folder, distance, on_part)

    def __len__(self) -> int:
        return int(self.facts["num_images"])

    def __str__(self) -> str:
        detections = counted(self.facts.get("num_detections", 0), "detection")
        return f"ledger in {self.folder}: {counted(len(self), 'image')}, {detections}"

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class QueryResult:
    """Images of a ledger that are worth annotating, the most wanted first.

    Args:
        ledger: that they were chosen from.
        found: the images, and of how many they were chosen.
        strategy, seed, class_counts: that they were chosen by.
    """

    ledger: ScoredPool
    found: LedgerQuery
    strategy: Strategy
    seed: int
    class_counts: Mapping[str, int] | None = None

    @property
    def image_ids(self) -> tuple[str, ...]:
        return tuple(image.image_id for image in self.found.images)

    @property
    def num_excluded(self) -> int:
        """Images of the ledger that were left out because they were named."""
        return self.found.num_excluded

    @property
    def scores(self) -> np.ndarray:
        """(N,) float64: the number that each image was ranked by."""
        return np.array([image.score for image in self.found.images], dtype=np.float64)

    @property
    def doubts(self) -> list[str]:
        """What the ranking does not mean, in sentences: images without detections, and ties at its border."""
        return self.found.doubts

    @property
    def table(self) -> pa.Table:
        """rank, image_id, uri, score, num_detections, predicted_classes, predicted_boxes, distance, nearest, note."""
        return query_table(self.found.images)

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a DataFrame."""
        return self.table.to_pandas()

    def write(self, out: str | Path, *, html: str | Path | None = None, force: bool = False) -> list[Path]:
        """Writes query.parquet, query.csv and query.txt into a folder.

        Args:
            out: the folder.
            html: also a page of the query, into this file; see `page`.
            force: write over another query or file; the same is written again in any case.

        Raises:
            QueryError: another query or file is there, or `html` does not end in .html; nothing is written.
        """
        page = None if html is None else self._page_file(Path(html), force)
        if not force:
            refuse_another_query(self.found.images, Path(out))
        paths = write_query(self.found.images, Path(out))
        if html is None or page is None:
            return paths
        write_whole(Path(html), page)
        return [*paths, Path(html)]

    def _page_file(self, path: Path, force: bool) -> bytes:
        """What is to be written into a page's file, which is free for it."""
        from raylearn.reporting.template import page_bytes

        if path.suffix.lower() not in (".html", ".htm"):
            raise QueryError(f"{path} does not end in .html: give --html the name of a page")
        content = page_bytes(self.page)
        if path.exists() and not force and (not path.is_file() or path.read_bytes() != content):
            raise QueryError(f"{path} is another file: give another --html, or --force to write over it")
        return content

    @property
    def page(self) -> str:
        """An html page that needs nothing else: the first images in order of rank, and why each was chosen."""
        from raylearn.reporting.query_page import render_query

        names, record = self.ledger.class_names, {"ledger": str(self.ledger.folder), "seed": self.seed}
        return render_query(self._gallery, self.found, self.strategy, names, self.class_counts, record)

    @property
    def unreadable(self) -> list[str]:
        """Ids of images that the page shows as grey areas, as they cannot be read any more."""
        return [image_id for image_id, picture in self._gallery["images"].items() if "lost" in picture]

    @cached_property
    def _gallery(self) -> dict[str, Any]:
        nearest = {image.reason.nearest for image in self.found.images if image.reason.nearest}
        known = files_of(self.ledger.folder, [*self.image_ids, *nearest])
        files = {image_id: file for image_id, (file, _) in known.items()}
        seen = {image_id: found for image_id, (_, found) in known.items()}
        counts = counts_by_class(self.class_counts, self.ledger.class_names, self.strategy)
        return waiting_query(self.found.images, files, seen, self.strategy, Context(self.seed, counts))

    def hand_out(self, tool: Tool, out: str | Path, *, copies: bool | None = None, boxes_above: float = 0.25) -> Path:
        """Writes the images for an annotation tool, with the detections as pre-annotations.

        Args:
            tool: "label-studio", "cvat", "coco", "yolo" or "csv".
            out: a new folder.
            copies: copy the images into it, or leave them where they are; None does as the tool needs.
            boxes_above: detections from this confidence on are pre-annotations.
        """
        check_handout(tool, Path(out), copies)
        seen = detections_of(self.ledger.folder, self.image_ids)
        names = self.ledger.class_names
        return export_query(self.found.images, seen, names, tool, Path(out), copies=copies, confidence=boxes_above)

    def __len__(self) -> int:
        return len(self.found.images)

    def __str__(self) -> str:
        return f"{len(self):,} of {counted(self.found.num_candidates, 'image')} of {self.ledger.folder}"

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class CascadeResult:
    """A query by exact scores, of which few images had to be scored.

    Args:
        query: from the ledger of the images that were scored exactly; any other query can be asked of it too.
        facts: what was scored, and what share of the exact top may be missing.
        max_miss: the most that the upper limit of that share was to be.
    """

    query: QueryResult
    facts: "CascadeFacts"
    max_miss: float

    @property
    def record(self) -> dict[str, Any]:
        """What stands in cascade.json beside the query."""
        facts, query = self.facts, self.query
        return {
            "strategy": query.strategy.label,
            "size": len(query),
            "seed": query.seed,
            "ledger": str(facts.exact),
            "num_images": facts.num_images,
            "num_exact": facts.num_exact,
            "beta": facts.cut / len(query),
            "won": facts.won,
            "missed": asdict(facts.missed),
            "max_miss": self.max_miss,
            "fast": facts.fast,
        }

    def write(self, out: str | Path, *, html: str | Path | None = None, force: bool = False) -> list[Path]:
        """Writes the query, as `QueryResult.write` does, and cascade.json."""
        paths = self.query.write(out, html=html, force=force)
        record = Path(out) / "cascade.json"
        write_whole(record, json.dumps(self.record, indent=1).encode())
        return [*paths, record]

    def __str__(self) -> str:
        facts = self.facts
        scored = f"{facts.num_exact:,} of {counted(facts.num_images, 'image')} scored exactly"
        if not facts.won:
            return f"{scored}: the cascade could not win; nothing of the exact top is missed"
        return f"{scored}, {facts.cut / len(self.query):.3g} for each one asked for: {in_words(facts.missed)}"

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """How much the queries of several strategies have in common.

    Args:
        names: of the strategies.
        overlaps: (A, A) float64 in [0, 1]: the share of images that two queries have in common.
        size: images of each query.
        num_images: candidates that they were drawn from.
        num_without_detections: candidates in which the detector found nothing.
    """

    names: tuple[str, ...]
    overlaps: np.ndarray
    size: int
    num_images: int = 0
    num_without_detections: int = 0

    @property
    def doubt(self) -> str | None:
        """What the shares do not mean, as too many images have no detections; None where few have none."""
        return doubt_of_pool(self.num_without_detections, self.num_images, CONFIDENCE, self.size)

    def to_pandas(self) -> "pd.DataFrame":
        """The shares, with the names as rows and columns."""
        import pandas as pd

        return pd.DataFrame(self.overlaps, index=list(self.names), columns=list(self.names))

    def write(self, out: str | Path) -> None:
        """Writes the shares as a CSV file."""
        show_comparison(self.names, self.overlaps, self.size, Path(out))

    def __str__(self) -> str:
        table = show_comparison(self.names, self.overlaps, self.size, None)
        return f"{table}\nwarning: {self.doubt}" if self.doubt else table

    __repr__ = __str__
