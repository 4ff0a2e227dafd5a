"""Checkpoints: one directory per model, safe to load from strangers.

    model.safetensors    the weights; the header below as one JSON string in its metadata
    localizer.onnx       the first localization net; localizer-2.onnx … for further stages, head-2-localizer.onnx … for
                         further heads
    classifier.onnx      where the model has a classifier
    reader.onnx          where it has a reader
    golden.safetensors   stored inputs and outputs, replayed by `stn models verify`
    README.md            model card

`header` and `store` never import torch; `weights` and `export` do.
"""

from stn_cli.checkpoints.header import Header
from stn_cli.checkpoints.store import Checkpoint, bundled_models, open_checkpoint

__all__ = ["Checkpoint", "Header", "bundled_models", "open_checkpoint"]
