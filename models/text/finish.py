"""From a run to a model as it is bundled: it gets its habits, and loses the hidden units that never fire.

    python models/text/finish.py /usr/share/fonts runs/text models/text

Rectifiers die in training: a unit that is silent on all of 4,096 samples says nothing. Without those of the first two
nets the checkpoint stays below 8 MB, and finds what it found before. It ran after the third part, from whose weights
the fourth began, and after that.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.weights import load_model
from stn_cli.engines.verify import write_golden
from stn_cli.networks.model import Rectifier
from stn_cli.training.config import read_config
from stn_cli.training.text.samples import TextSamples, read_lettering

STAGES = (0, 1)  # the votes of the third have as many hidden units as its head
SAMPLES, MASKS, SEED, GOLDEN_IMAGES = 4096, 4000, 10, 4


def firing(model: Rectifier, images: torch.Tensor) -> dict[int, torch.Tensor]:
    """Of the nets that are looked at, which hidden units fire on any image."""
    fires: dict[int, torch.Tensor] = {}

    def watch(number: int, rectifier: Any) -> Any:
        def see(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            some = (output > 0).any(dim=0)
            fires[number] = some | fires.get(number, some)

        return rectifier.register_forward_hook(see)

    hooks = [watch(number, head_of(model, number).trunk[3]) for number in STAGES]
    with torch.no_grad():
        for part in torch.split(images, 256):
            model.transformer.locate(part)
    for hook in hooks:
        hook.remove()
    return fires


def head_of(model: Rectifier, number: int) -> Any:
    return model.transformer.stages[number].localizer


def pruned(model: Rectifier, images: torch.Tensor) -> Rectifier:
    """The model without the units that never fire."""
    state, stages = dict(model.state_dict()), list(model.config.stages)
    for number, fires in firing(model, images).items():
        prefix = f"transformer.stages.{number}.localizer."
        state[f"{prefix}head.weight"] = state[f"{prefix}head.weight"][:, fires]
        for name in ("trunk.2.weight", "trunk.2.bias"):
            state[prefix + name] = state[prefix + name][fires]
        print(f"stage {number + 1}: {int(fires.sum())} of {len(fires)} hidden units fire")
        stages[number] = msgspec.structs.replace(stages[number], hidden=int(fires.sum()))
    smaller = Rectifier(msgspec.structs.replace(model.config, stages=tuple(stages)))
    smaller.load_state_dict(state)
    return smaller.eval()


def main(fonts: Path, run: Path, target: Path) -> None:
    config = read_config(Path(__file__).parent / "config.toml")
    assert config.text is not None
    header = open_checkpoint(str(run)).header
    model = load_model(open_checkpoint(str(run)))
    model.config = msgspec.structs.replace(model.config, upright_odds=config.upright_odds)
    model.transformer.upright_odds = config.upright_odds
    lettering = read_lettering([fonts], config.text)
    samples = TextSamples(
        config.text,
        lettering.fonts,
        lettering.words,
        masks=MASKS,
        canvas=config.canvas,
        seed=SEED,
        length=SAMPLES,
        workers=1,
    )
    canvases = samples.__getitems__(range(SAMPLES)).canvas
    checkpoint = write_checkpoint(
        pruned(model, canvases.float() / 255),
        target,
        name=config.name,
        description=config.description,
        training={**header.training, "config": msgspec.to_builtins(config)},
        metrics=header.metrics,
        min_confidence=config.min_confidence,
        crop_margin=config.crop_margin,
        straight_within=config.straight_within,
        second_look=config.second_look,
    )
    golden = canvases[:GOLDEN_IMAGES].numpy().transpose(0, 2, 3, 1)
    write_golden(checkpoint, np.ascontiguousarray(golden))
    print(f"{checkpoint.size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
