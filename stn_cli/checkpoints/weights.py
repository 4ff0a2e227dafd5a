"""Between checkpoints and torch models."""

import copy

import torch
from torch import nn

from stn_cli.checkpoints.store import WEIGHTS, Checkpoint
from stn_cli.errors import ModelError
from stn_cli.networks.model import Rectifier

_CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d


def stored_weights(model: Rectifier) -> dict[str, torch.Tensor]:
    """The state of a model as a checkpoint stores it: matrices and kernels in float16, all else as it is.

    A classifier that is not ours is not part of it: only its own program could take the weights up again.
    """
    classifier = model.config.classifier
    foreign = "classifier." if classifier is not None and classifier.backbone else None
    return {
        name: value.half().contiguous() if value.is_floating_point() and value.ndim > 1 else value.contiguous()
        for name, value in model.state_dict().items()
        if foreign is None or not name.startswith(foreign)
    }


def load_model(checkpoint: Checkpoint) -> Rectifier:
    """The trainable model, in float32 and evaluation mode.

    Raises:
        ModelError: tensors are missing, superfluous, of the wrong shape, damaged or not finite.
    """
    tensors = {name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()}
    model = Rectifier(checkpoint.header.model)
    try:
        model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"{checkpoint.path / WEIGHTS} does not fit its own architecture: {error}") from error
    return model.eval()


def inference_model(model: Rectifier) -> Rectifier:
    """A copy whose batch norms are folded into the convolutions, its weights rounded to what a graph stores.

    The ONNX graphs are exported from it and the torch path runs it, so that both compute with the same numbers.
    """
    folded = _round(copy.deepcopy(model).eval())  # as a stored model is, so that a loaded one gives the same graphs
    classifier = model.config.classifier
    foreign = folded.classifier if classifier is not None and classifier.backbone else None
    theirs = set() if foreign is None else set(foreign.modules())  # whose layers are not ours to rearrange
    for module in set(folded.modules()) - theirs:
        if isinstance(module, nn.Sequential):
            _fold(module)
    return _round(folded).requires_grad_(False)


def _round(model: Rectifier) -> Rectifier:
    """Matrices and kernels rounded to float16, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
    return model


def _fold(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        convolution, norm = layers[i], layers[i + 1]
        if isinstance(convolution, _CONVOLUTIONS) and isinstance(norm, _NORMS):
            layers[i] = nn.utils.fuse_conv_bn_eval(convolution, norm)
            layers[i + 1] = nn.Identity()
