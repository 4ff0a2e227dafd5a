"""What does it cost that nothing is lost?

    python -m benchmarks.durability DATA --work DIR

5,000 crops of words are rectified as always, and by the same program without flushes to the disk and without its
journal; the two take turns. The throughput is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.provenance import RESULTS, provenance, write_report
from benchmarks.workloads import measure, word_files

if TYPE_CHECKING:
    from collections.abc import Sequence

FILES = 5000
AS_ALWAYS = "from stn_cli.__main__ import main; main()"
CARELESS = (
    """
import os
from stn_cli.images import storage
from stn_cli.rectify import ledger
storage._flush = storage._fsync = ledger.write_journal = os.fsync = lambda *_: None
"""
    + AS_ALWAYS
)


def run(code: str, folder: Path, out: Path) -> None:
    options = ["-o", str(out), "--force", "-q", "--device", "cpu"]
    subprocess.run([sys.executable, "-c", code, "rectify", str(folder), *options], check=True)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durability", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder that holds text/")
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and outputs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "durability.json")
    args = parser.parse_args(argv)
    words, out = args.work / "words", args.work / "out"
    word_files(args.data, words, FILES)
    seconds = measure(
        {"as always": lambda: run(AS_ALWAYS, words, out), "careless": lambda: run(CARELESS, words, out)}, args.rounds
    )
    share = seconds["careless"]["median"] / seconds["as always"]["median"]
    print(f"{seconds}\n{share:.3f} of the throughput without flushes and journal")
    write_report(args.output, provenance("durability", argv) | {"seconds": seconds, "throughput": share})


if __name__ == "__main__":
    main(sys.argv[1:])
