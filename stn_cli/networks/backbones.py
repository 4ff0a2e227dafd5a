"""Classifiers that are not ours: torchvision's, or what a function of the user's own makes."""

import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.errors import UsageError
from stn_cli.networks.config import MOST_ELEMENTS, Size
from stn_cli.networks.localization import Standardize

_TORCHVISION = "torchvision"


class Backbone(nn.Module):
    """Logits over the classes of a crop, by a network that sees it standardised."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.standardize, self.net = Standardize(), net

    def forward(self, crop: Float[Tensor, "b c *size"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.net(self.standardize(crop))
        return logits


def needs_colours(name: str) -> bool:
    """Whether the network takes images of three channels and no other."""
    return name.partition(":")[0] == _TORCHVISION


def is_function(name: str) -> bool:
    """Whether somebody's own function makes the network."""
    return bool(name) and name.partition(":")[0] != _TORCHVISION


def backbone(name: str, *, classes: int, channels: int, size: Size) -> Backbone:
    """The network of that name, with weights drawn at random.

    Args:
        name: `torchvision:NAME`, as `torchvision.models.get_model` has it, or `module:function`; the function is called
            with `classes` and `channels`, and returns a module from (b, channels, *size) to (b, classes). The module
            is looked for where Python looks, and in the working directory.
        classes, channels: of its output and its input.
        size: (height, width), or (depth, height, width), of what it sees.

    Raises:
        UsageError: there is no such network, or it does not take such images or make such logits.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise UsageError(f"backbone {name!r} is neither torchvision:NAME nor module:function")
    made = _of_torchvision(function, classes) if module == _TORCHVISION else _own(module, function, classes, channels)
    said = "×".join(map(str, size))
    try:
        told = _told(made, torch.zeros(2, channels, *size))
    except Exception as error:  # it is somebody else's program
        raise UsageError(f"backbone {name} cannot see {channels} channels of {said}: {error}") from error
    for what in told:
        shape = tuple(what.shape) if isinstance(what, Tensor) else type(what).__name__
        if shape != (2, classes):
            raise UsageError(
                f"backbone {name} makes {shape} of two images, not logits of {classes} classes (2, {classes})"
            )
    largest = max((weights.numel() for weights in made.parameters()), default=0)
    if largest > MOST_ELEMENTS:
        raise UsageError(f"backbone {name} has a layer of {largest:,} weights; a checkpoint takes {MOST_ELEMENTS:,}")
    return Backbone(made.train())


def _told(net: nn.Module, images: Tensor) -> tuple[object, object]:
    """What a network says of images when it is used, and when it learns, which leaves no trace in it."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return copy.deepcopy(net).train()(images), net.eval()(images)


def _of_torchvision(name: str, classes: int) -> nn.Module:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise UsageError(
            f"torchvision:{name} needs the package torchvision",
            remedy="Install it beside torch: pip install torchvision",
        ) from error
    try:
        net: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    except ValueError as error:
        raise UsageError(f"torchvision has no model {name!r}") from error
    return net


def _own(module: str, name: str, classes: int, channels: int) -> nn.Module:
    try:
        function: Callable[..., nn.Module] = getattr(_imported(module), name)
    except Exception as error:  # somebody else's program again
        raise UsageError(f"there is no backbone {module}:{name}: {error}") from error
    try:
        net = function(classes=classes, channels=channels)
    except Exception as error:  # as above
        raise UsageError(f"{module}:{name}(classes={classes}, channels={channels}) failed: {error}") from error
    if not isinstance(net, nn.Module):
        raise UsageError(f"{module}:{name} returned {type(net).__name__}, not a torch module")
    return net


def _imported(module: str) -> object:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(here)
