"""Does every transform learn by default, whatever the seed? Short runs on MNIST, from its classes alone.

    python -m benchmarks.convergence MNIST --work DIR [--seeds 10] [--steps 600] [--transforms affine tps]

A run has converged when the classifier behind the transformer reads 98 % of the held-out digits or more, and has
collapsed when the log names any symptom: crops that are blank, outside the image, folded, too far out, or θ at a bound.
Runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.training.api import Resources, plan, trainer_of
from stn_cli.training.defaults import Wishes, transform_called

CONVERGED = 0.98
TRANSFORMS = ("affine", "similarity", "attention", "projective", "tps")


def learned(mnist: Path, work: Path, transform: str, seed: int, steps: int) -> dict[str, Any]:
    """What a run came to."""
    result = work / f"{transform}-{seed}-{steps}.json"
    if result.exists():
        stored: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return stored
    given = {"seed": seed, "steps": steps, "validate_every": steps}
    wishes = Wishes(transform=transform_called(transform))
    trainer = trainer_of(plan([mnist], given, wishes, Resources(workers=1)), result.with_suffix(""))
    trainer.train()
    log = [json.loads(line) for line in (trainer.run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    overall = trainer.best_validation["overall"]
    found = {
        "accuracy": overall["accuracy"],
        "turn_spread": overall["turn_spread"],
        "symptoms": [entry["warning"] for entry in log if "warning" in entry],
    }
    result.write_text(json.dumps(found), encoding="utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--transforms", nargs="+", default=TRANSFORMS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = {}
    for transform in arguments.transforms:
        runs = [
            learned(arguments.mnist, arguments.work, transform, seed, arguments.steps)
            for seed in range(arguments.seeds)
        ]
        accuracies = [run["accuracy"] for run in runs]
        table[transform] = {
            "converged": sum(accuracy >= CONVERGED for accuracy in accuracies),
            "collapsed": sum(bool(run["symptoms"]) for run in runs),
            "accuracy": {"least": min(accuracies), "median": statistics.median(accuracies), "most": max(accuracies)},
            "turn_spread_median": statistics.median(run["turn_spread"] for run in runs),
        }
        print(transform, json.dumps(table[transform]), flush=True)
    report = {**provenance("convergence", sys.argv[1:]), "seeds": arguments.seeds, "steps": arguments.steps}
    write_report(RESULTS / "convergence.json", {**report, "transforms": table})


if __name__ == "__main__":
    main()
