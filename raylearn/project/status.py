"""How a project stands, in lines that fit a terminal."""

from collections.abc import Iterator

from raylearn.project.steps import Cycle, Standing
from raylearn.reporting.summary import class_balance
from raylearn.wording import counted

_BAR = 30


def status_lines(cycle: Cycle, standing: Standing) -> Iterator[str]:
    """Budget, a line per measured round with its mAP as a bar, the boxes of each class, and what is next."""
    dataset, pool = cycle.bench.dataset, standing.pool
    yield (
        f"{dataset.name}: {len(pool.labelled):,} of {counted(len(pool.images), 'image')} labelled, "
        f"{counted(pool.num_boxes, 'box', 'boxes')}; {len(dataset.test)} held out"
    )
    best = max((float(done.evaluation.facts["map50_95"]) for done in standing.rounds), default=0.0)
    if standing.rounds and not best:
        yield "mAP50-95 is 0 in every round: the detector finds nothing on the held-out images yet; train longer"
    if standing.rounds:
        yield "round  images   boxes  mAP50  mAP50-95"
    for done in standing.rounds:
        measured = done.evaluation.facts
        bar = "#" * round(_BAR * measured["map50_95"] / best) if best else ""
        yield (
            f"{done.index:5}  {len(done.pool.labelled):6}  {done.pool.num_boxes:6}  {measured['map50']:.3f}  "
            f"{measured['map50_95']:8.3f}  {bar}"
        )
    if pool.labelled:
        counts = pool.class_counts(dataset.num_classes)
        shares = ", ".join(f"{name} {count}" for name, count in zip(dataset.class_names, counts.tolist(), strict=True))
        balance = class_balance(counts.tolist())
        yield f"boxes: {shares}" + ("" if balance is None else f"; balance {balance:.2f} of 1")
    yield cycle.advice(standing)
