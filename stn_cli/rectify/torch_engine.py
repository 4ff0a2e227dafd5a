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
from stn_cli.images import Pixels, Size
from stn_cli.rectify.engine import Engine, Small, luminance
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.footprint import fill_values, weighted_fill
from stn_cli.sampling.kinds import Fill, Resample
from stn_cli.sampling.warp import Each, Reading, warp


def is_available(device: str) -> bool:
    """Whether torch can use `cuda` or `mps` here."""
    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


class TorchEngine(Engine):
    """Nets and sampler on a device."""

    out_of_memory = (torch.OutOfMemoryError,)

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

    def take(self, small: Small) -> Float[Tensor, "1 c h w"]:
        small = luminance(small) if self.model.channels == 1 else small
        return torch.from_numpy(small).to(self.device).permute(2, 0, 1)[None]

    @torch.inference_mode()
    def views(
        self, taken: Sequence[Float[Tensor, "1 c h w"]], transforms: Transform, size: Size, each: Each
    ) -> Float[Tensor, "b c h w"]:
        del each  # the device is one
        moved = self._moved(transforms)
        seen = [sample(image, moved[number], size)[0].float() for number, image in enumerate(taken)]
        batch = torch.stack([view.expand(self.model.channels, -1, -1) for view in seen])
        return batch.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def infer(self, graph: str, views: Tensor) -> list[np.ndarray]:
        return [output.float().cpu().numpy() for output in self.nets[graph](views)]

    def crop(
        self,
        pixels: Pixels,
        transform: Transform,
        size: Size,
        resample: Resample,
        fill: Fill,
        reading: Reading | None = None,
    ) -> Pixels:
        del reading
        try:
            return self._crop(pixels, transform, size, resample, fill)
        except torch.OutOfMemoryError:  # the samplers agree within one grey level
            return warp(pixels, transform, size, resample=resample, fill=fill)

    @torch.inference_mode()
    def _crop(self, pixels: Pixels, transform: Transform, size: Size, resample: Resample, fill: Fill) -> Pixels:
        full, has_alpha = float(np.iinfo(pixels.dtype).max), pixels.shape[2] in (2, 4)
        image = torch.from_numpy(pixels.astype(np.float32)).to(self.device).permute(2, 0, 1)[None]
        if has_alpha:
            image = torch.cat((image[:, :-1] * image[:, -1:] / full, image[:, -1:]), dim=1)
            fill = fill if fill == "border" else weighted_fill(fill_values(fill, pixels.shape[2]), full)
        values = sample(image, self._moved(transform), size, resample=resample, fill=fill)[0]
        if has_alpha:
            colours = torch.where(values[-1:] > 0, values[:-1] * full / values[-1:], 0.0)
            values = torch.cat((colours, values[-1:]))
        rounded = values.round().clamp(0, full).permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(rounded.astype(pixels.dtype))

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
