"""Which way is up? A net that is asked about straightened lines, where the votes of the splines leave doubt.

Engines for documents have such a net behind the detector, for whole lines (PP-OCR, Du et al. 2020, section 2.2).
"""

import itertools

from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.networks.config import DirectionConfig
from stn_cli.networks.localization import MeanOfLast, Standardize, conv_layers, halved


class DirectionNet(nn.Module):
    """Log-odds that a line is upright rather than upside down.

    What it sees of the letters is averaged along the line: they tell wherever they stand. In evaluation a line is
    looked at both ways up, and the difference counts, so that turning it over changes the sign and nothing else.
    """

    def __init__(self, config: DirectionConfig) -> None:
        super().__init__()
        self.config = config
        *levels, last = config.widths
        layers: list[nn.Module] = [Standardize(), *conv_layers(config.channels, levels[0], kernel=5, stride=2)]
        for narrow, wide in itertools.pairwise(levels):
            layers += [*conv_layers(narrow, narrow), *conv_layers(narrow, wide, stride=2)]
        layers += [Residual(levels[-1]) for _ in range(config.blocks)]
        layers += [*conv_layers(levels[-1], last), MeanOfLast(), nn.Flatten()]
        self.letters = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(last * halved(config.input_size[0], len(levels)), config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, 1),
        )

    def forward(self, line: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        if self.training:
            return self._said(line)
        return (self._said(line) - self._said(line.flip(2, 3))) / 2

    def _said(self, line: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        odds: Tensor = self.head(self.letters(line))
        return odds[:, 0]


class Residual(nn.Module):
    """Two convolutions, and what went in (He et al. 2016); nothing else to begin with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*conv_layers(width, width), *conv_layers(width, width)[:-1])
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        changed: Tensor = x + self.layers(x)
        return changed.relu()
