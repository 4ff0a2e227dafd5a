"""From a run to a model as it is bundled: it gets its habits, and loses the hidden units that never fire.

    python models/text/finish.py /usr/share/fonts runs/text models/text

Rectifiers die in training: a unit that is silent on all of 4,096 samples says nothing. Without those the checkpoint
stays below 8 MB, and finds what it found before. It ran after the third part, from whose weights the fourth began,
after the fourth, and after the last; before that it spared the third net.
"""

import sys
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import torch

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.weights import load_model
from stn_cli.engines.verify import write_golden
from stn_cli.networks.model import Rectifier
from stn_cli.training.config import TrainConfig, read_config
from stn_cli.training.text.samples import TextSamples, read_lettering

SAMPLES, MASKS, SEED, GOLDEN_IMAGES = 4096, 4000, 10, 4
LAYERS = {"trunk": ("trunk.2", 3, "head"), "votes": ("votes.5", 6, "votes.7")}
"""A hidden layer, the number of its rectifier in the sequence of that name, and the layer behind it."""

Hidden = dict[tuple[int, str], torch.Tensor]
"""Of a stage, and of a sequence of its net, which hidden units fire."""


def rendered(fonts: Path, config: TrainConfig) -> torch.Tensor:
    """Words as the run met them, (n, 1, side, side) uint8."""
    assert config.text is not None
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
    return samples.__getitems__(range(SAMPLES)).canvas


def firing(model: Rectifier, images: torch.Tensor) -> Hidden:
    """Which hidden units fire on any image."""
    fires: Hidden = {}

    def watch(key: tuple[int, str], rectifier: Any) -> Any:
        def see(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            some = (output > 0).any(dim=0)
            fires[key] = some | fires.get(key, some)

        return rectifier.register_forward_hook(see)

    nets = [cast("Any", stage).localizer for stage in model.transformer.stages]
    hooks = [
        watch((number, name), getattr(net, name)[rectifier])
        for number, net in enumerate(nets)
        for name, (_, rectifier, _) in LAYERS.items()
        if getattr(net, name) is not None
    ]
    with torch.no_grad():
        for part in torch.split(images, 256):
            model.transformer.locate(part)
    for hook in hooks:
        hook.remove()
    return fires


def pruned(model: Rectifier, images: torch.Tensor) -> Rectifier:
    """The model without the units that never fire; as many stay in each hidden layer of a net."""
    state, stages, fires = dict(model.state_dict()), list(model.config.stages), firing(model, images)
    for number, stage in enumerate(stages):
        kept = max(int(units.sum()) for (of, _), units in fires.items() if of == number)
        print(f"stage {number + 1}: {kept} of {stage.hidden} hidden units fire")
        prefix = f"transformer.stages.{number}.localizer."
        for name, (hidden, _, behind) in LAYERS.items():
            if (number, name) in fires:
                units = fires[number, name].float().topk(kept).indices.sort().values
                state[f"{prefix}{behind}.weight"] = state[f"{prefix}{behind}.weight"][:, units]
                for entry in (f"{prefix}{hidden}.weight", f"{prefix}{hidden}.bias"):
                    state[entry] = state[entry][units]
        stages[number] = msgspec.structs.replace(stage, hidden=kept)
    smaller = Rectifier(msgspec.structs.replace(model.config, stages=tuple(stages)))
    smaller.load_state_dict(state)
    return smaller.eval()


def main(fonts: Path, run: Path, target: Path) -> None:
    config = read_config(Path(__file__).parent / "config.toml")
    header = open_checkpoint(str(run)).header
    model = load_model(open_checkpoint(str(run)))
    direction = config.direction if model.config.direction else None
    model.config = msgspec.structs.replace(model.config, upright_odds=config.upright_odds, direction=direction)
    model.transformer.upright_odds = config.upright_odds
    canvases = rendered(fonts, config)
    checkpoint = write_checkpoint(
        pruned(model, canvases.float() / 255),
        target,
        name=config.name,
        description=config.description,
        training={**header.training, "config": msgspec.to_builtins(config)},
        metrics=header.metrics,
        min_confidence=config.min_confidence,
        crop_margin=config.crop_margin,
        crop_resample=config.crop_resample,
        straight_within=config.straight_within,
        second_look=config.second_look,
    )
    golden = canvases[:GOLDEN_IMAGES].numpy().transpose(0, 2, 3, 1)
    write_golden(checkpoint, np.ascontiguousarray(golden))
    print(f"{checkpoint.size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
