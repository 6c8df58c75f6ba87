"""The series of a run: readable at any moment, Parquet at the end."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from experiments.emulation.metrics import Metrics

SAMPLES = [(0, "leaf1>spine1", "packets", 3.0), (1_000_000_000, "n1", "rss_bytes", 4096.0)]


def test_what_was_written_before_a_crash_can_be_read(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(SAMPLES)
    metrics.write([])
    reader = pa.ipc.open_stream((tmp_path / "metrics.arrows").read_bytes())
    assert reader.read_next_batch().to_pylist() == [
        {"t": 0, "source": "leaf1>spine1", "metric": "packets", "value": 3.0},
        {"t": 1_000_000_000, "source": "n1", "metric": "rss_bytes", "value": 4096.0},
    ]
    metrics.close()


def test_at_the_end_there_is_one_parquet_file(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for sample in SAMPLES:
        metrics.write([sample])
    metrics.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.parquet"]
    assert pyarrow.parquet.read_table(tmp_path / "metrics.parquet").num_rows == 2
