"""What each default of `stn train` is worth: one of them changed at a time, learning from classes alone.

    python -m benchmarks.ablations GTSRB/train.tar --work DIR [--steps 1000] [--seeds 2] [--variants NAME ...]
    python -m benchmarks.ablations MNIST --work DIR …

Of traffic signs, tracks are kept together and a fifth of them is held out. MNIST is cluttered, see
`benchmarks.cluttered`, and its crops have 20×20 pixels. The true frames are measured against, never learned from. Runs
that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.cluttered import write_cluttered
from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.errors import DivergedError
from stn_cli.networks.config import Limits
from stn_cli.training.api import Plan, Resources, plan, trainer_of
from stn_cli.training.config import TrainConfig
from stn_cli.training.defaults import Wishes, transform_called
from stn_cli.training.loop import Trainer

SIGNS = {"labels": "roi.csv", "group_by": r"^(\d+/\d+)_", "validation_share": 0.2, "objectives": ["classify"]}
CLUTTERED = {"objectives": ["classify"], "classifier_size": [20, 20]}
SAFEGUARDS: dict[str, dict[str, Any]] = {
    "limits": {},
    "a smaller rate for its net": {"localizer_scale": 1.0},
    "a continued border": {},
    "a falling rate": {},
    "warm-up": {"warmup": 0},
    "an average of weights": {"ema": 0.0},
    "clipping": {"clip": 1e9},
    "penalties": {"penalties": {"out_of_frame": 0.0, "fold": 0.0}},
    "anti-aliasing": {"resample": "bilinear"},
}
"""What keeps transformers from going astray, and what a configuration says where it is left out, if it can."""
NOT_MOVED = {"rotation": 0.0, "scale": 1.0, "shear": 0.0, "shift": 0.0, "light": 0.0}
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "localizer_scale 1": ("a smaller rate for its net",),
    "no limits": ("limits",),
    "black beyond the image": ("a continued border",),
    "constant rate": ("a falling rate",),
    "no warm-up": ("warm-up",),
    "no average of weights": ("an average of weights",),
    "no clipping": ("clipping",),
    "no penalties": ("penalties",),
    "bilinear, not anti-aliased": ("anti-aliasing",),
    "no safeguard": tuple(SAFEGUARDS),
    **{f"no safeguard but {kept}": tuple(set(SAFEGUARDS) - {kept}) for kept in SAFEGUARDS},
}
OTHERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "localizer_scale 0.1": {"localizer_scale": 0.1},
    "limit of zoom 3": {},
    "random start": {},
    "late fall of the rate": {"cooldown": 0.3},
    "no augmentation": {"augment": NOT_MOVED},
    "no transformer": {"bypassed": True},
}
VARIANTS = (*OTHERS, *LEFT_OUT)
KEPT = ("accuracy", "accuracy_halfway", "accuracy_unrectified", "iou", "zoom_mean", "out_of_frame", "saturated")


def configured(planned: Plan, variant: str) -> TrainConfig:
    """The plan's configuration with other limits of the transform, where the variant is one of these."""
    changed: dict[str, Any] = {}
    if "limits" in LEFT_OUT.get(variant, ()):
        changed = {"limits": None, "bound": 0.0}
    elif variant == "limit of zoom 3":
        changed = {"limits": Limits(zoom=3.0)}
    stages = tuple(msgspec.structs.replace(stage, **changed) for stage in planned.config.stages)
    return msgspec.structs.replace(planned.config, stages=stages)


def altered(trainer: Trainer, variant: str) -> None:
    """What no configuration says differently, because nobody should want it."""
    left_out = LEFT_OUT.get(variant, ())
    transformers = [*trainer.model.transformers, *trainer.averaged_model().transformers]
    if variant == "random start":
        for transformer in transformers:
            torch.manual_seed(trainer.config.seed)
            localizers: list[Any] = [stage.localizer for stage in transformer.stages]
            for localizer in localizers:
                localizer.head.reset_parameters()
    if "a continued border" in left_out:
        for transformer in transformers:
            transformer.fill = (0.0,) * trainer.config.channels
    if "a falling rate" in left_out:
        peak, warmup = trainer.config.learning_rate, max(1, trainer.config.warmup)
        trainer._rate = lambda: peak * min(1.0, (trainer.step + 1) / warmup)  # type: ignore[method-assign]


def measured(data: Path, work: Path, transform: str, variant: str, seed: int, steps: int) -> dict[str, Any]:
    """What a run came to."""
    name = "cluttered" if data.is_dir() else "signs"
    result = work / f"{name}-{transform}-{variant.replace(' ', '_')}-{seed}-{steps}.json"
    if result.exists():
        stored: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return stored
    of_data = CLUTTERED if data.is_dir() else SIGNS
    changed = dict(OTHERS.get(variant, {}))
    for name in LEFT_OUT.get(variant, ()):
        changed |= SAFEGUARDS[name]
    given = {**of_data, "seed": seed, "steps": steps, "validate_every": steps // 2, **changed}
    planned = plan([data], given, Wishes(transform=transform_called(transform)), Resources(workers=1))
    planned = Plan(planned.source, configured(planned, variant), planned.resources)
    trainer = trainer_of(planned, result.with_suffix(""))
    altered(trainer, variant)
    try:
        trainer.train()
        found = _outcome(trainer)
    except DivergedError as error:
        found = {"symptoms": [str(error)]}
    result.write_text(json.dumps(found), encoding="utf-8")
    return found


def _outcome(trainer: Trainer) -> dict[str, Any]:
    log = [json.loads(line) for line in (trainer.run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    halfway, *_, overall = (entry["validation"]["overall"] for entry in log if "validation" in entry)
    overall["accuracy_halfway"] = halfway["accuracy"]
    symptoms = [entry["warning"] for entry in log if "warning" in entry]
    return {**{name: overall[name] for name in KEPT if name in overall}, "symptoms": symptoms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the archive of signs, or the folder of MNIST")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--transform", default="affine")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--output", type=Path, help="default: results/ablations-DATA-TRANSFORM.json")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    name, data = "signs", arguments.data
    if data.is_dir():
        name, data = "cluttered", arguments.work / "cluttered"
        write_cluttered(arguments.data, data)
    table: dict[str, Any] = {}
    for variant in arguments.variants:
        runs = [
            measured(data, arguments.work, arguments.transform, variant, seed, arguments.steps)
            for seed in range(arguments.seeds)
        ]
        table[variant] = {
            name: statistics.mean(each[name] for each in runs) for name in KEPT if all(name in each for each in runs)
        }
        table[variant]["symptoms"] = sorted({symptom for each in runs for symptom in each["symptoms"]})
        print(variant, json.dumps(table[variant]), flush=True)
    report = {**provenance("ablations", sys.argv[1:]), "transform": arguments.transform, "steps": arguments.steps}
    output = arguments.output or RESULTS / f"ablations-{name}-{arguments.transform}.json"
    write_report(output, {**report, "variants": table})


if __name__ == "__main__":
    main()
