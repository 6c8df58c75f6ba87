"""What was measured while a run lasted, as one long series: (t, source, metric, value).

An Arrow stream while it runs, since a stream cut off by a crash can be read up to there; a Parquet file cut off has no
footer and is lost, so that is only made at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

Sample = tuple[int, str, str, float]


class Metrics:
    """Writes samples into ``<run>/metrics.arrows``; `close` leaves ``metrics.parquet`` in its place."""

    def __init__(self, run: Path) -> None:
        import pyarrow as pa

        self._pa: Any = pa
        self._path = run / "metrics.arrows"
        self._schema = pa.schema(
            [("t", pa.int64()), ("source", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
        )
        self._file = self._path.open("wb", buffering=0)
        self._stream = pa.ipc.new_stream(self._file, self._schema)

    def write(self, samples: Iterable[Sample]) -> None:
        """Append samples: nanoseconds since the workload started, what was measured, which figure, its value."""
        columns = list(zip(*samples, strict=True))
        if columns:
            arrays = [self._pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._stream.write_batch(self._pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        import pyarrow.parquet

        self._stream.close()
        self._file.close()
        table = self._pa.ipc.open_stream(self._path.read_bytes()).read_all()
        pyarrow.parquet.write_table(table, self._path.with_suffix(".parquet"))
        self._path.unlink()
