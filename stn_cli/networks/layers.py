"""Two of torch's layers, made faster where networks are trained on a CPU; anywhere else they are torch's own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn_cli.annotations import Float


class GreyConv2d(nn.Conv2d):
    """A convolution of one channel by an odd kernel and a stride of 2, whose padding is half the kernel.

    The gradient with respect to the image takes half the time if each 2×2 pixels become four channels and the stride 1:
    oneDNN fills a single channel up to sixteen.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(1, channels, kernel, 2, kernel // 2, bias=False)

    def forward(self, input: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h2 w2"]:
        if not input.requires_grad or input.device.type != "cpu":
            return super().forward(input)
        half, (height, width) = self.kernel_size[0] // 2, input.shape[2:]
        padded = F.pad(input, (half, half + width % 2, half, half + height % 2))
        return F.conv2d(_blocks(padded), _blocks(F.pad(self.weight, (0, 1, 0, 1))))


def _blocks(image: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 4 h2 w2"]:
    return F.pixel_unshuffle(image, 2).contiguous(memory_format=torch.channels_last)


class ByteDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) of a share stated in 256ths, by random bytes: eight are drawn at once."""

    def __init__(self, dropped: int) -> None:
        super().__init__()
        self.dropped = dropped

    def forward(self, x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
        if not self.training or x.device.type != "cpu":
            return F.dropout(x, self.dropped / 256, self.training)
        numbers = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        kept = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * kept * (256 / (256 - self.dropped))
