"""What does `stn` cost? Whole processes from start to exit, the nets' bare passes, and the size of the bundled models.

    python -m benchmarks.cost

Every command runs once to fill the caches of the file system, then ROUNDS times; the median counts. So do the passes:
all localization nets of a model, as often as they repeat, on a batch of 64 in ONNX Runtime on all cores; and by itself
a direction net, which is asked of a few lines alone. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.provenance import REPOSITORY, RESULTS, provenance, write_report
from benchmarks.workloads import measure
from stn_cli.checkpoints import Checkpoint, bundled_models
from stn_cli.checkpoints.header import DIRECTION, localizer_names
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.networks.config import Size

IMAGE = REPOSITORY / "sample_images" / "words" / "arch.jpg"
BATCH = 64
COMMANDS = {
    "stn --help": ["--help"],
    "stn models list": ["models", "list"],
    "stn rectify, one image, CPU": [
        "rectify",
        str(IMAGE),
        "-o",
        "{out}",
        "--device",
        "cpu",
        "--on-exists",
        "overwrite",
    ],
    "stn rectify sample_images/words, CPU": ["rectify", str(IMAGE.parent), "-o", "{out}", "--device", "cpu", "-q"],
}


def run(arguments: list[str]) -> None:
    """A command, from start to exit, into a folder of its own."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "stn_cli", *(argument.format(out=out) for argument in arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)


def milliseconds_a_crop(checkpoint: Checkpoint, rounds: int) -> dict[str, float]:
    """Medians of all localization passes of a model on a batch, and of that of its direction net, by the length."""
    engine = OnnxEngine(checkpoint, os.cpu_count() or 1)
    named = zip(localizer_names(engine.model), engine.model.stages, strict=True)
    channels = engine.model.channels
    passes = {
        "localization": [
            (graph, (channels * len(stage.looks), *stage.input_size))
            for graph, stage in named
            for _ in range(stage.repeat)
        ]
    }
    if engine.model.direction is not None:
        passes["direction"] = [(DIRECTION, (channels, *engine.model.direction.input_size))]
    return {name: milliseconds(engine, some, rounds) for name, some in passes.items()}


def milliseconds(engine: OnnxEngine, passes: list[tuple[str, Size]], rounds: int) -> float:
    """Median of passes on a batch, one after another, by the length of the batch."""
    rng, times = np.random.default_rng(0), []
    shown = [(graph, rng.random((BATCH, *shape), dtype=np.float32)) for graph, shape in passes]
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for graph, views in shown:
            engine.infer(graph, views)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[1:]) / BATCH


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS / "cost.json")
    args = parser.parse_args(argv)
    seconds = measure({name: partial(run, arguments) for name, arguments in COMMANDS.items()}, args.rounds)
    passes = {checkpoint.name: milliseconds_a_crop(checkpoint, args.rounds) for checkpoint in bundled_models()}
    sizes = {checkpoint.name: checkpoint.size for checkpoint in bundled_models()}
    for name, values in seconds.items():
        print(f"{name:32} {values['median']:.3f} s  ({values['least']:.3f} to {values['most']:.3f})")
    for name, size in sizes.items():
        print(f"{name:32} {size / 1e6:.2f} MB", *(f"{net} {ms:.2f} ms" for net, ms in passes[name].items()))
    result = {"seconds": seconds, "milliseconds_a_crop": passes, "checkpoint_bytes": sizes}
    write_report(args.output, provenance("cost", argv) | result)


if __name__ == "__main__":
    main(sys.argv[1:])
