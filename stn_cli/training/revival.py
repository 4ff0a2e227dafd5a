"""Hidden units that never fire get another chance when a run starts from weights that another left."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.networks.localization import LocalizationNet
from stn_cli.networks.model import InsideLocalizer, Rectifier

_PART = 128


def revive(model: Rectifier, images: Float[Tensor, "n c h w"], *, first: int = 0) -> int:
    """Draws the weights of dead hidden units anew, from stage `first` on; returns how many there are.

    A rectified unit is dead if it fires on none of the images: no gradient reaches it any more. The layer behind it
    forgets it, so that the model still predicts what it did.
    """
    stages = [stage for transformer in model.transformers for stage in list(transformer.stages)[first:]]
    layers = [layer for stage in stages for layer in _hidden_layers(stage.localizer)]
    fires = [torch.zeros(linear.out_features, dtype=torch.bool) for linear, _, _ in layers]
    with ExitStack() as hooks, torch.no_grad():
        for number, (_, rectifier, _) in enumerate(layers):

            def see(_module: nn.Module, _inputs: Any, output: Tensor, number: int = number) -> None:
                fires[number] |= (output > 0).any(dim=0)

            hooks.callback(rectifier.register_forward_hook(see).remove)
        training = model.training
        model.eval()
        for part in torch.split(images, _PART):
            for transformer in model.transformers:
                transformer.locate(part)
        model.train(training)
        for (linear, _, behind), alive in zip(layers, fires, strict=True):
            fresh = nn.Linear(linear.in_features, linear.out_features)
            linear.weight[~alive] = fresh.weight[~alive]
            linear.bias[~alive] = fresh.bias[~alive]
            behind.weight[:, ~alive] = 0.0
    return sum(int((~alive).sum()) for alive in fires)


def _hidden_layers(localizer: Any) -> Iterator[tuple[nn.Linear, nn.ReLU, nn.Linear]]:
    """Each hidden layer with its rectifier and the layer behind it."""
    localizer = localizer.net if isinstance(localizer, InsideLocalizer) else localizer
    if not isinstance(localizer, LocalizationNet) or localizer.config.trunk != "conv":
        return
    chains = [[*localizer.trunk, localizer.head], [] if localizer.votes is None else [*localizer.votes]]
    for chain in chains:
        for linear, rectifier, behind in zip(chain, chain[1:], chain[2:], strict=False):
            if isinstance(linear, nn.Linear) and isinstance(rectifier, nn.ReLU) and isinstance(behind, nn.Linear):
                yield linear, rectifier, behind
