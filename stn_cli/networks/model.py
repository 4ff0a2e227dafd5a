"""The rectifier that a checkpoint holds: a spatial transformer, and perhaps a classifier behind it."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from stn_cli.networks.classifier import CropClassifier
from stn_cli.networks.config import LocalizerConfig, ModelConfig
from stn_cli.networks.localization import LocalizationNet
from stn_cli.networks.transformer import Located, SpatialTransformer, Stage, Start


class Rectified(NamedTuple):
    """What the model makes of a batch; `logits` are of no classes where it has no classifier."""

    located: Located
    logits: Float[Tensor, "b classes"]


class Rectifier(nn.Module):
    """Localize, sample, classify."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        crop_size = config.classifier.input_size if config.classifier else config.stages[-1].input_size
        self.transformer = SpatialTransformer(
            [_stage(stage) for stage in config.stages], crop_size, fit=config.fit, upright_odds=config.upright_odds
        )
        self.classifier = CropClassifier(config.classifier) if config.classifier else None

    def forward(
        self, image: Float[Tensor, "b c h w"], *, detach: bool = False, start: Start | None = None, skip: int = 0
    ) -> Rectified:
        located = self.transformer.locate(image, detach=detach, start=start, skip=skip)
        if self.classifier is None:
            return Rectified(located, image.new_zeros(len(image), 0))
        crop = self.transformer.sample(image, located.transform)
        return Rectified(located, self.classifier(crop))


def _stage(config: LocalizerConfig) -> Stage:
    return Stage(LocalizationNet(config), config.transform.spec, config.input_size, config.margin, config.repeat)
