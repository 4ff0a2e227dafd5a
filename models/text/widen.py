"""From the fourth part to where the last begins: the direction net knows what the votes of the third net know.

    python models/text/widen.py /usr/share/fonts runs/text-4-finished runs/text-4-widened

The direction net is wider than the path of those votes, and deeper by residual blocks that change nothing yet: its
first channels are theirs, and nothing comes in from the others (Net2Net, Chen et al. 2016).
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import torch
from finish import firing, rendered
from torch import nn

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.weights import load_model
from stn_cli.networks.direction import Residual
from stn_cli.networks.model import Rectifier
from stn_cli.training.config import read_config


def widened(model: Rectifier, other: Any, fires: torch.Tensor) -> None:
    """Gives the direction net of `model` the path of votes of the localization net `other`, whose units fire or not."""
    direction: Any = model.transformer.direction
    theirs = [*other.trunk[1][:-7], *other.votes[:3]]
    mine = [layer for layer in direction.letters[1:] if not isinstance(layer, Residual)]
    for source, target in zip(theirs, mine, strict=False):
        if isinstance(source, nn.BatchNorm2d):
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(target, name)[: source.num_features] = getattr(source, name)
        elif isinstance(source, nn.Conv2d):
            embed(source.weight, target.weight)
    rows = direction.config.input_size[0] >> len(direction.config.widths) - 1
    hidden, last, count = direction.head[0], direction.head[2], int(fires.sum())
    shapes = [layer.weight.reshape(len(layer.weight), -1, rows) for layer in (other.votes[5], hidden)]
    embed(shapes[0][fires], shapes[1])
    hidden.bias[:count] = other.votes[5].bias[fires]
    up, over = other.votes[7].weight
    last.weight.zero_()
    last.weight[0, :count] = (up - over)[fires]
    last.bias[0] = other.votes[7].bias[0] - other.votes[7].bias[1]


def embed(source: torch.Tensor, target: torch.Tensor) -> None:
    """The first outputs are those of the source, and see its inputs alone."""
    outputs, inputs = source.shape[:2]
    target[:outputs, inputs:] = 0.0
    target[:outputs, :inputs] = source


def main(fonts: Path, run: Path, target: Path) -> None:
    config = read_config(Path(__file__).parent / "config.toml")
    header = open_checkpoint(str(run)).header
    model = load_model(open_checkpoint(str(run)))
    torch.manual_seed(config.seed)
    wider = Rectifier(msgspec.structs.replace(model.config, direction=config.direction))
    with torch.no_grad():
        wider.load_state_dict({**wider.state_dict(), **model.state_dict()})
        fires = firing(model, rendered(fonts, config).float() / 255)[2, "votes"]
        widened(wider, model.transformer.stages[2].localizer, fires)
    write_checkpoint(
        wider.eval(),
        target,
        name=config.name,
        description=config.description,
        training=header.training,
        metrics=header.metrics,
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
