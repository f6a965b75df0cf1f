"""Train on a Parquet file of ten million rows, predict for it, and state the peak memory.

    python examples/ten_million_rows.py --rows 10000000 --folder big

The file has 12 columns of numbers and 8 of categories, and a target of two classes; it is made in
row groups and kept, so that a second run starts with the training. Each step runs in its own
process, whose peak memory (its resident set) is compared with the size of the encoded columns:
float32 numbers, and codes of categories in the smallest integer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS, CATEGORIES = 12, 8
GROUP = 250_000
"""Rows per row group."""
SMALL = 200_000
"""Rows of the table that shows how much memory a process needs whatever the number of rows."""


def make(path: Path, rows: int) -> None:
    """Write the file, unless it is there with this number of rows."""
    if path.exists() and pq.ParquetFile(path).metadata.num_rows == rows:
        return
    part, writer = path.with_suffix(".part"), None
    for start in range(0, rows, GROUP):
        draws = np.random.default_rng(start)
        n = min(GROUP, rows - start)
        numbers = draws.normal(size=(NUMBERS, n)).astype(np.float32)
        codes = draws.integers(0, [[10 * 2**at] for at in range(CATEGORIES)], (CATEGORIES, n))
        score = numbers[0] + numbers[1] * numbers[2] + (codes[0] - 4.5) / 3
        columns = {f"number_{at}": pa.array(each) for at, each in enumerate(numbers)}
        for at, each in enumerate(codes):
            names = pa.array([f"value {code}" for code in range(10 * 2**at)])
            columns[f"category_{at}"] = pa.DictionaryArray.from_arrays(pa.array(each), names)
        columns["target"] = pa.array(np.where(score + draws.normal(size=n) > 0, "high", "low"))
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(part, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    part.replace(path)


def fit(path: Path, model: Path) -> None:
    """Train a small network for one epoch and export: most of the time is that of the data."""
    from flambeau import Learner
    from flambeau_tabular import TabularData

    state("imports")
    data = TabularData.from_parquet(path, "target", valid=0.1)
    state("data")
    network = {"hidden": [64], "number_embedding": "none"}
    learner = Learner(data, choices={"epochs": 1, "batch_size": 4096, "probe": "off", **network})
    learner.fit()
    state("fit")
    learner.export(model)


def predict(path: Path, model: Path, out: Path) -> None:
    """Predict for the file in pieces, as ``flambeau predict`` does."""
    from flambeau.cli.app import build_app

    state("imports")
    words = ["predict", str(model), str(path), "--out", str(out), "--batch-size", "4096"]
    build_app()(words, standalone_mode=False)
    state("predict")


def state(step: str) -> None:
    """Print the peak memory of this process until now, and its seconds of CPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    used = time.process_time()
    print(json.dumps({"step": step, "peak_mb": round(peak / 1e6), "cpu_s": round(used)}))


def encoded_megabytes(rows: int) -> float:
    """Return the size of the encoded columns (int16 codes) and of the target (int8)."""
    return rows * (4 * NUMBERS + 2 * CATEGORIES + 1) / 1e6


def run(rows: int, folder: Path) -> dict[str, int]:
    """Run all steps, each in its own process, and return the peak memory of each in MB."""
    peaks = {}
    for step in ("make", "fit", "predict"):
        words = ["--rows", str(rows), "--folder", str(folder), "--step", step]
        command = [sys.executable, __file__, *words]
        # By default glibc keeps freed blocks of up to 32 MB, in pieces between those in use, and so
        # does Arrow's own allocator.
        memory = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "ARROW_DEFAULT_MEMORY_POOL": "system"}
        variables = {**os.environ, **memory}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
        print(done.stdout, end="", flush=True)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                found = json.loads(line)
                peaks[found["step"]] = found["peak_mb"]
    return peaks


def main() -> None:
    """Run all steps, or the one that is named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("ten_million_rows"))
    parser.add_argument("--step", choices=["make", "fit", "predict"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"rows_{options.rows}.parquet"
    model, out = options.folder / "model", options.folder / "predictions.parquet"
    if options.step == "make":
        make(path, options.rows)
    elif options.step == "fit":
        fit(path, model)
    elif options.step == "predict":
        predict(path, model, out)
    else:
        few, many = (run(rows, options.folder) for rows in (SMALL, options.rows))
        encoded = encoded_megabytes(options.rows)
        print(f"{options.rows:,} rows, encoded columns {encoded:,.0f} MB")
        for step, peak in many.items():
            more = (peak - few[step]) / max(1e-9, encoded - encoded_megabytes(SMALL))
            print(
                f"{step}: peak {peak:,} MB, {peak / encoded:.2f} times the encoded columns; each "
                f"further MB of encoded columns needs {more:.2f} MB"
            )


if __name__ == "__main__":
    main()
