"""More rows than memory holds: put aside on a disk, in buckets that are small enough to be looked at one by one."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

_ROWS_PER_BUCKET = 1 << 20
_MOST_BUCKETS = 256
_ROWS_AT_ONCE = 1 << 16


class Buckets:
    """Rows by a number that each has; rows of equal numbers come into one bucket, in the order they were added.

    Args:
        directory: exists, and is removed by whoever made it.
        name: of its files.
        schema: of the rows.
        num_rows: how many there will be, or more.
    """

    def __init__(self, directory: Path, name: str, schema: pa.Schema, num_rows: int) -> None:
        self.count = min(_MOST_BUCKETS, 1 + num_rows // _ROWS_PER_BUCKET)
        self._paths = [directory / f"{name}-{number}.arrow" for number in range(self.count)]
        self._waiting: list[tuple[pa.Table, np.ndarray]] = []
        self._num_waiting = 0
        self._open = ExitStack()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        writers = (pa.ipc.new_file(str(path), schema, options=options) for path in self._paths)
        self._writers = [self._open.enter_context(writer) for writer in writers]

    def add(self, table: pa.Table, numbers: np.ndarray) -> None:
        """Puts rows aside.

        Args:
            table: N rows.
            numbers: (N,) uint64, spread evenly over all that there are; buckets are ranges of them.
        """
        self._waiting.append((table, numbers))
        self._num_waiting += len(table)
        if self._num_waiting >= _ROWS_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(table for table, _ in self._waiting)
        buckets = (np.concatenate([numbers for _, numbers in self._waiting]) >> np.uint64(32)) * self.count >> 32
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(self.count + 1))
        for writer, start, end in zip(self._writers, ends[:-1], ends[1:], strict=True):
            if end > start:
                writer.write_table(table.take(order[start:end]))
        self._waiting, self._num_waiting = [], 0

    def __iter__(self) -> Iterator[pa.Table]:
        """Each bucket, in the order of its numbers; nothing can be added afterwards."""
        self._write()
        self._open.close()
        for path in self._paths:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
                yield file.read_all()
            path.unlink()
