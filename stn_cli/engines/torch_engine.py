"""The engine of accelerators, and of volumes: nets and sampler in torch, images on the device."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from stn_cli.annotations import Float
from stn_cli.checkpoints import Checkpoint
from stn_cli.checkpoints.export import runnable_nets
from stn_cli.checkpoints.weights import inference_model, load_model
from stn_cli.engines.engine import Engine, Small
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.geometry import Cascade, Linear, ThinPlateSpline, Transform
from stn_cli.images import Pixels
from stn_cli.images.channels import luminance
from stn_cli.networks.config import Size
from stn_cli.networks.model import channels_last
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.footprint import fill_values, weighted_fill
from stn_cli.sampling.kinds import Fill, Resample
from stn_cli.sampling.warp import Each, Reading, warp


class TorchEngine(Engine):
    """Nets and sampler on a device."""

    out_of_memory = (torch.OutOfMemoryError,)

    def __init__(self, checkpoint: Checkpoint, device: str, head: int = 0) -> None:
        super().__init__(checkpoint, head)
        self.device = torch.device(device)
        self.nets = runnable_nets(inference_model(load_model(checkpoint)))
        backbone = self.model.classifier is not None and self.model.classifier.backbone
        self.foreign = OnnxEngine(checkpoint, head=head) if backbone else None
        for net in self.nets.values():
            net.to(self.device, memory_format=channels_last(self.model.dims)).eval()  # type: ignore[call-overload]

    def take(self, small: Small) -> Float[Tensor, "1 c *size"]:
        small = luminance(small) if self.model.channels == 1 else small
        return self._sent(small).movedim(-1, 0)[None]

    @torch.inference_mode()
    def views(
        self, taken: Sequence[Float[Tensor, "1 c *size"]], transforms: Transform, size: Size, each: Each
    ) -> Float[Tensor, "b c *size"]:
        del each  # the device is one
        moved = self._moved(transforms)
        views = torch.empty((len(taken), self.model.channels, *size), device=self.device)
        for numbers in _of_one_size(taken):
            images, rows = torch.cat([taken[number] for number in numbers]), torch.tensor(numbers)
            views[rows] = sample(images, moved[rows], size).float().expand(-1, *views.shape[1:])
        return views.contiguous(memory_format=channels_last(self.model.dims))

    def joined(self, views: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(views), dim=1)

    @torch.inference_mode()
    def infer(self, graph: str, views: Tensor) -> list[np.ndarray]:
        if graph not in self.nets and self.foreign is not None:
            return self.foreign.infer(graph, views.float().cpu().numpy())
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # θ is that of the CPU, to 1e-4
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
        plain = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)  # uint16 is not for every device
        image = self._sent(plain).float().permute(2, 0, 1)[None]
        if has_alpha:
            image = torch.cat((image[:, :-1] * image[:, -1:] / full, image[:, -1:]), dim=1)
            fill = fill if fill == "border" else weighted_fill(fill_values(fill, pixels.shape[2]), full)
        values = sample(image, self._moved(transform), size, resample=resample, fill=fill)[0]
        if has_alpha:
            colours = torch.where(values[-1:] > 0, values[:-1] * full / values[-1:], 0.0)
            values = torch.cat((colours, values[-1:]))
        rounded = values.round().clamp(0, full).permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(rounded.astype(pixels.dtype))

    def _sent(self, pixels: np.ndarray) -> Tensor:
        """On the device, which may still be receiving it."""
        tensor = torch.from_numpy(pixels)
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)

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


def _of_one_size(taken: Sequence[Tensor]) -> Iterable[list[int]]:
    """What can be read at once."""
    groups: dict[torch.Size, list[int]] = {}
    for number, image in enumerate(taken):
        groups.setdefault(image.shape, []).append(number)
    return groups.values()
