"""The engine of accelerators: nets and sampler in torch, images on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stn_cli.checkpoints import Checkpoint
from stn_cli.checkpoints.export import ClassifierGraph, LocalizerGraph
from stn_cli.checkpoints.header import graph_names
from stn_cli.checkpoints.weights import inference_model, load_model
from stn_cli.geometry import Cascade, Linear, ThinPlateSpline, Transform
from stn_cli.images import Pixels
from stn_cli.rectify.engine import Engine, Size
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.footprint import Fill, Resample


def is_available(device: str) -> bool:
    """Whether torch can use `cuda` or `mps` here."""
    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


class TorchEngine(Engine):
    """Images are (1, c, h, w) float32 in the units of their pixels, colours weighted by alpha where there is one."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        super().__init__(checkpoint)
        self.device = torch.device(device)
        model = inference_model(load_model(checkpoint))
        graphs: list[nn.Module] = [LocalizerGraph(stage.localizer) for stage in model.transformer.stages]  # type: ignore[arg-type]
        if model.classifier is not None:
            graphs.append(ClassifierGraph(model.classifier))
        self.nets = dict(zip(graph_names(self.model), graphs, strict=True))
        for net in graphs:
            net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def prepare(self, pixels: Pixels) -> "DeviceImage":
        return DeviceImage(pixels, self.device)

    @torch.inference_mode()
    def view(self, image: "DeviceImage", transform: Transform, size: Size) -> Float[Tensor, "3 h w"]:
        values = sample(image.weighted, self._moved(transform), size)[0] / image.full
        if image.has_alpha:
            values = values[:-1] + (1.0 - values[-1:])
        return values.expand(3, -1, -1)

    @torch.inference_mode()
    def infer(self, graph: str, views: Sequence[Tensor]) -> list[np.ndarray]:
        batch = torch.stack(list(views)).to(memory_format=torch.channels_last)
        return [output.float().cpu().numpy() for output in self.nets[graph](batch)]

    @torch.inference_mode()
    def crop(self, image: "DeviceImage", transform: Transform, size: Size, resample: Resample, fill: Fill) -> Pixels:
        values = sample(image.weighted, self._moved(transform), size, resample=resample, fill=fill)[0]
        if image.has_alpha:
            alpha = values[-1:]
            colours = torch.where(alpha > 0, values[:-1] * image.full / alpha, 0.0)
            values = torch.cat((colours, alpha))
        rounded = values.round().clamp(0, image.full).permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(rounded.astype(image.dtype))

    def _moved(self, transform: Transform) -> Transform:
        """The transform on the device; MPS knows no float64."""
        match transform:
            case Cascade():
                return Cascade(tuple(self._moved(stage) for stage in transform.stages))
            case ThinPlateSpline():
                return ThinPlateSpline(self._theta(transform), transform.layout)
            case Linear():
                return type(transform)(self._theta(transform))
            case _:
                raise TypeError(f"{transform.kind} transforms are not predicted by networks")

    def _theta(self, transform: Transform) -> Tensor:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.from_numpy(transform.theta).to(self.device, dtype)


class DeviceImage:
    """An image on a device."""

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self.dtype = pixels.dtype
        self.full = float(np.iinfo(pixels.dtype).max)
        self.has_alpha = pixels.shape[2] in (2, 4)
        values = torch.from_numpy(pixels.astype(np.float32)).to(device).permute(2, 0, 1)[None]
        if self.has_alpha:
            values = torch.cat((values[:, :-1] * values[:, -1:] / self.full, values[:, -1:]), dim=1)
        self.weighted = values
