"""A small classifier of the rectified crop."""

from typing import cast

from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.networks.config import ClassifierConfig
from stn_cli.networks.layers import ByteDropout
from stn_cli.networks.localization import Standardize, conv_trunk, layers_of, trunk_features


class CropClassifier(nn.Module):
    """Logits over the classes of a crop of the configured size, or of several crops joined along their channels."""

    def __init__(self, config: ClassifierConfig, crops: int = 1) -> None:
        super().__init__()
        self.config = config
        channels = crops * config.channels
        trunk = conv_trunk(channels, config.widths, len(config.input_size))
        features = trunk_features(trunk, channels, config.input_size)
        self.layers = nn.Sequential(
            Standardize(),
            trunk,
            ByteDropout(51),
            nn.Linear(features, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, len(config.classes)),
        )

    def forward(self, crop: Float[Tensor, "b c *size"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.layers(crop)
        return logits

    def features(self, image: Float[Tensor, "b c h w"], levels: int) -> Float[Tensor, "b width rows columns"]:
        """What the first levels make of an image."""
        standardize, trunk = self.layers[0], cast("nn.Sequential", self.layers[1])
        features: Tensor = trunk[: layers_of(levels)](standardize(image))
        return features

    def told(self, features: Float[Tensor, "b width rows columns"], levels: int) -> Float[Tensor, "b classes"]:
        """What the other levels make of such features."""
        trunk = cast("nn.Sequential", self.layers[1])
        logits: Tensor = self.layers[2:](trunk[layers_of(levels) :](features))
        return logits
