"""A recogniser of words: characters from left to right, by connectionist temporal classification (CTC)."""

import itertools

from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.networks.config import ReaderConfig
from stn_cli.networks.localization import Standardize, conv_layers


class CropReader(nn.Module):
    """Logits over the blank and the characters, for columns of a crop four pixels apart.

    Convolutions alone, as in Rosetta (Borisyuk et al. 2018): every level halves the height, the first two the width as
    well; two convolutions along the line then see some letters to either side.
    """

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [Standardize(), *conv_layers(config.channels, config.widths[0], kernel=5, stride=2)]
        for level, (narrow, wide) in enumerate(itertools.pairwise(config.widths)):
            layers += conv_layers(narrow, narrow)
            layers += conv_layers(narrow, wide, stride=2 if level == 0 else (2, 1))
        self.columns = nn.Sequential(*layers, nn.Flatten(1, 2))
        features = config.widths[-1] * config.rows
        self.line = nn.Sequential(
            *_along(features, config.hidden), *_along(config.hidden, config.hidden), nn.Dropout(0.1)
        )
        self.head = nn.Conv1d(config.hidden, len(config.alphabet) + 1, 1)

    def forward(self, crop: Float[Tensor, "b c h w"]) -> Float[Tensor, "b columns characters"]:
        logits: Tensor = self.head(self.line(self.columns(crop)))
        return logits.transpose(1, 2)


def _along(narrow: int, wide: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(narrow, wide, 5, padding=2, bias=False), nn.BatchNorm1d(wide), nn.ReLU(inplace=True)
