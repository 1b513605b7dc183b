"""A query cheaper than a pass: all images by a fast setting, the best of them and a sample by the exact one.

In a folder: `fast` is a ledger of the whole pool by the fast setting, for any query. `best-KEY-1` and so on are ledgers
of what one query wanted to know exactly, the first of them with the sample drawn by chance, and `exact-KEY` is all of
those as one. Where a cascade cannot win from the start, `plain` is one pass over the whole pool by the exact setting.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from raylearn.cluster.devices import has_fast_bf16, torch_device
from raylearn.data.storage import Folder, scheme_of
from raylearn.detectors import read_checkpoint
from raylearn.errors import LedgerError, QueryError
from raylearn.learning.ledger_query import counts_by_class, scores_of
from raylearn.measures.missed import BETA, NONE_MISSED, Found, Missed, search, too_many
from raylearn.measures.sampling import seeded_order, tie_order
from raylearn.progress import doing, steps
from raylearn.scoring.ledger import FACTS_FILE, NOTHING, PartCounts, part_name, parts_of, read_facts
from raylearn.scoring.listing import list_pool
from raylearn.scoring.pass_record import Record, read_record
from raylearn.scoring.pool_scoring import score_pool
from raylearn.scoring.progress import say
from raylearn.scoring.request import ScoreRequest, image_size_of
from raylearn.scoring.updating import read_listings, rows_before
from raylearn.scoring.walks import own_root
from raylearn.strategies import ImageScoring, Strategy
from raylearn.wording import counted

SAMPLE = 0.01
SMALLEST_SAMPLE = 400
_COUNTS = ("num_images", "num_detections", "errors", "num_without_detections")


@dataclass(frozen=True)
class CascadeQuery:
    """What is asked for.

    Args:
        strategy: gives each image a number.
        size: images of the query.
        max_miss: the most that the upper limit of the expected share missed may be, in [0, 1].
        seed: of the sample, the estimate, and the order of images of equal score.
        class_counts: boxes labelled so far, by class name; some strategies need it.
        exclude: ids that are not wanted.

    Raises:
        QueryError: a strategy that does not rank images by numbers of their own, or a value out of its range.
    """

    strategy: Strategy
    size: int
    max_miss: float = 0.02
    seed: int = 0
    class_counts: Mapping[str, int] | None = None
    exclude: Sequence[str] = ()
    scoring: ImageScoring = field(init=False)

    def __post_init__(self) -> None:
        found = self.strategy
        if not isinstance(found, ImageScoring):
            raise QueryError(
                f"a cascade needs a strategy that gives each image a number, and {found.name} weighs images against "
                "each other: use `raylearn score` and `raylearn query`"
            )
        if not found.needs_pass or found.simulation_only:
            raise QueryError(f"strategy {found.name} is not decided by what a detector sees: a cascade gains nothing")
        if found.max_per_group is not None:
            raise QueryError(
                "a cascade cannot limit groups: leave max_per_group out, or use `raylearn score` and query"
            )
        if not 0 <= self.max_miss < 1:
            raise QueryError(f"max_miss {self.max_miss!r} is not a share: give a number from 0 to below 1")
        object.__setattr__(self, "scoring", found)

    @property
    def key(self) -> str:
        """In the names of its ledgers: another query has others in the same folder."""
        facts = [self.strategy.label, self.size, self.max_miss, self.seed]
        content = json.dumps([*facts, sorted((self.class_counts or {}).items()), sorted(self.exclude)])
        return hashlib.sha256(content.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class CascadeFacts:
    """What a cascade did.

    Args:
        exact: the ledger of all images that were scored exactly.
        num_images: that could be asked for.
        num_exact: that were scored exactly.
        cut: of those, so many because they are the best by the fast score.
        missed: of the exact top N.
        won: whether less than all were scored exactly.
        fast: the settings of the fast pass; None where there was none.
    """

    exact: Folder
    num_images: int
    num_exact: int
    cut: int
    missed: Missed
    won: bool
    fast: Mapping[str, Any] | None


def cascade(
    request: ScoreRequest, work: Folder, query: CascadeQuery, *, address: str | None, console: Console
) -> CascadeFacts:
    """Scores as few images exactly as the query needs; the same call again goes on.

    Args:
        request: the exact setting.
        work: folder of the ledgers.
        query: what is asked for.
        address: see `raylearn.score`.
        console: for what stays to be read.

    Raises:
        InputError: see `score_pool`; or more images are asked for than there are.
    """
    if request.update:
        raise QueryError(
            "a cascade does not update ledgers: leave update out, and name another folder for other images"
        )
    names = read_checkpoint(request.checkpoint).class_names
    query.strategy.refuse_classes(len(names))
    counts_by_class(query.class_counts, names, query.strategy)
    run = _Cascade(request, work, query, address, console)
    if _record(work.below("fast")) is None:
        num_images = _num_images(request)
        if too_many(BETA * query.size, sample_size(num_images), num_images):
            say(
                console,
                f"a cascade cannot win: a query of {query.size:,} and its sample of {sample_size(num_images):,} are "
                f"too many of {counted(num_images, 'image')}; all are scored exactly",
            )
            return run.plain()
    return run.in_two_passes()


class _Cascade:
    def __init__(
        self, request: ScoreRequest, work: Folder, query: CascadeQuery, address: str | None, console: Console
    ) -> None:
        self._request, self._work, self._query, self._console = request, work, query, console
        self._address = address
        self._ledgers: list[Folder] = []

    def plain(self) -> CascadeFacts:
        """By one pass over all."""
        folder = self._score(self._request, "plain")
        facts = read_facts(folder)
        readable = facts["num_images"] - facts["num_errors"]
        return CascadeFacts(folder, readable, readable, readable, NONE_MISSED, False, None)

    def in_two_passes(self) -> CascadeFacts:
        query, fast = self._query, self._fast_request()
        say(self._console, f"fast pass: {fast.image_size} px, {fast.canvas}, {fast.precision}")
        folder = self._score(fast, "fast")
        ids, scores = self._scores(folder)
        listings = read_listings(folder, read_record(folder) or {})
        manifest = pa.concat_tables(table for _, _, table in rows_before(folder, listings, listings.parts))
        _refuse_odd_names(manifest)
        wanted = ~np.isin(np.array(ids, object), np.array(sorted(query.exclude), object))
        if query.size > np.count_nonzero(wanted):
            raise QueryError(
                f"a query of {query.size:,} images, but {np.count_nonzero(wanted):,} of the pool can be asked for: "
                "lower the size"
            )
        candidates = np.flatnonzero(wanted)
        names = [ids[i] for i in candidates]
        sample = seeded_order(names, query.seed, "cascade sample")[: sample_size(len(names))]
        order = np.lexsort((tie_order(names, query.scoring.tie_seed(query.seed)), -scores[candidates]))

        def score(positions: np.ndarray) -> np.ndarray:
            asked = [names[i] for i in positions]
            known = self._score_exactly(asked, f"best-{query.key}-{len(self._ledgers) + 1}", manifest)
            return np.array([known[name] for name in asked])

        found = search(
            scores[candidates],
            order,
            sample,
            score,
            query.size,
            query.max_miss,
            query.seed,
            partial(say, self._console),
        )
        return self._joined(found, read_facts(folder)["settings"])

    def _fast_request(self) -> ScoreRequest:
        """Half the image size, in rectangles; in bf16 where a CPU that computes in it does the work."""
        request, there = self._request, _record(self._work.below("fast"))
        embeddings = self._query.strategy.needs_embeddings
        precision = request.precision
        if there is not None:
            precision = there["engine"]["precision"]
        elif precision == "auto" and not embeddings and self._address is None and not request.gpus_per_actor:
            on_cpu = request.gpus_per_actor == 0 or torch_device(1) == "cpu"
            precision = "bf16" if on_cpu and has_fast_bf16() else "auto"
        half = -(-image_size_of(request) // 64) * 32
        return replace(request, image_size=half, canvas="rectangle", precision=precision, embeddings=embeddings)

    def _score(self, request: ScoreRequest, name: str) -> Folder:
        folder = self._work.below(name)
        score_pool(request, folder.address, address=self._address, console=self._console)
        return folder

    def _scores(self, folder: Folder) -> tuple[list[str], np.ndarray]:
        query = self._query
        with doing("reading the ledger"):
            told = partial(steps, "part")
            return scores_of(folder, query.scoring, seed=query.seed, class_counts=query.class_counts, progress=told)

    def _score_exactly(self, ids: Sequence[str], name: str, manifest: pa.Table) -> dict[str, float]:
        """Image id -> exact score, -inf of one that cannot be read."""
        listed = manifest.filter(pc.is_in(manifest["image_id"], pa.array(sorted(ids), pa.string())))
        say(self._console, f"exact pass: {counted(len(listed), 'image')}")
        with tempfile.TemporaryDirectory(prefix="raylearn-cascade-") as place:
            pool = Path(place) / f"{name}.parquet"
            pq.write_table(listed.select(["image_id", "uri", "content_hash"]), pool)
            root = self._request.root or own_root(self._request.pool)
            backend = self._exact_backend()
            request = replace(self._request, pool=str(pool), root=root, limit=None, shuffle_seed=None, backend=backend)
            folder = self._score(request, name)
        self._ledgers.append(folder)
        return dict.fromkeys(ids, -np.inf) | dict(zip(*self._scores(folder), strict=True))

    def _exact_backend(self) -> str:
        """What a pass over the whole pool would take, however few images a pass is over."""
        request, there = self._request, _record(self._work.below("fast"))
        if request.backend != "auto" or there is None:
            return request.backend
        if request.embeddings and request.precision not in ("auto", "fp32"):
            return "torch"
        return str(there["engine"]["backend"])

    def _joined(self, found: Found, fast: Mapping[str, Any]) -> CascadeFacts:
        """All exact ledgers as one, which answers as any other does."""
        joined = Folder.at(self._work.below(f"exact-{self._query.key}").address)
        counts, number, facts = NOTHING, 0, {}
        with doing("joining the exact ledgers"):
            for source in self._ledgers:
                facts = read_facts(source)
                counts += PartCounts(*(facts[name] for name in _COUNTS))
                for part in parts_of(facts):
                    content = source.read(part_name(part))
                    if content is None:
                        raise LedgerError(f"{source}/{part_name(part)} is not there: give another folder")
                    joined.add(part_name(number), content)
                    number += 1
            for name in ("key", "manifest", "part_size"):  # of one pass alone
                facts.pop(name, None)
            facts |= {**asdict(counts), "num_errors": counts.num_errors, "num_parts": number}
            joined.replace(FACTS_FILE, json.dumps(facts, indent=1, sort_keys=True).encode())
        num_exact = int(np.count_nonzero(~np.isnan(found.exact)))
        return CascadeFacts(
            joined, len(found.exact), num_exact, found.cut, found.missed, not found.scored_all, dict(fast)
        )


def _record(folder: Folder) -> Record | None:
    """What a pass was begun with; None where none was."""
    return None if folder.path is not None and not folder.path.is_dir() else read_record(folder)


def _num_images(request: ScoreRequest) -> int:
    with doing("listing the pool"):
        root = Path(request.root) if request.root is not None else None
        told = partial(steps, "image")
        return len(list_pool(request.pool, root=root, limit=request.limit, progress=told)[0])


def sample_size(num_images: int) -> int:
    """Images of a pool that are drawn by chance and scored both ways."""
    return max(SMALLEST_SAMPLE, round(SAMPLE * num_images))


def _refuse_odd_names(manifest: pa.Table) -> None:
    """A list cannot hold a name that is no UTF-8 under the id that it has in the pool."""
    for uri in manifest["uri"].to_pylist():
        if scheme_of(uri) == "file":
            raise QueryError(f"{uri} is not UTF-8, and a cascade cannot list it: rename it, or use `raylearn score`")
