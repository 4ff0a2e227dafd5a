"""The rectifier that a checkpoint holds: a spatial transformer, and perhaps nets behind it that read the crop."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.geometry import Transform
from stn_cli.networks.classifier import CropClassifier
from stn_cli.networks.config import LocalizerConfig, ModelConfig
from stn_cli.networks.direction import DirectionNet
from stn_cli.networks.localization import LocalizationNet, Pose
from stn_cli.networks.reader import CropReader
from stn_cli.networks.transformer import Located, SpatialTransformer, Stage, Start
from stn_cli.sampling.differentiable import sample


class Rectified(NamedTuple):
    """What the model makes of a batch.

    Attributes:
        heads: what each transformer found; most models have one.
        logits: of the classes; None without a classifier.
        characters: logits of the blank and the characters; None without a reader.
    """

    heads: tuple[Located, ...]
    logits: Float[Tensor, "b classes"] | None
    characters: Float[Tensor, "b columns characters"] | None

    @property
    def located(self) -> Located:
        """What the first transformer found."""
        return self.heads[0]


class Rectifier(nn.Module):
    """Localize, sample, classify or read.

    Args:
        config: of all nets.
        backbone: the classifier that is not ours, if the configuration names one; without it the model tells no class.
    """

    def __init__(self, config: ModelConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.classifier = backbone
        if config.classifier is not None and not config.classifier.backbone:
            self.classifier = CropClassifier(config.classifier, config.heads)
        self.transformer = _transformer(config, self.classifier)
        self.others = nn.ModuleList(_transformer(config, self.classifier) for _ in range(config.heads - 1))
        self.reader = CropReader(config.reader) if config.reader else None

    @property
    def transformers(self) -> tuple[SpatialTransformer, ...]:
        """Those of all heads."""
        return self.transformer, *(cast("SpatialTransformer", other) for other in self.others)

    def forward(
        self,
        image: Float[Tensor, "b c *size"],
        *,
        detach: bool = False,
        start: Start | None = None,
        skip: int = 0,
        bypass: bool = False,
    ) -> Rectified:
        """`bypass` reads the whole image, as if that were what the transformer had found; the rest is for `locate`."""
        if bypass:
            whole = self.transformer.whole(image)
            heads = (Located((whole,), (whole,), ()),) * len(self.transformers)
        else:
            heads = tuple(
                transformer.locate(image, detach=detach, start=start, skip=skip) for transformer in self.transformers
            )
        return Rectified(heads, *self.read(image, [head.transform for head in heads]))

    def read(
        self, image: Float[Tensor, "b c *size"], transforms: Sequence[Transform]
    ) -> tuple[Float[Tensor, "b classes"] | None, Float[Tensor, "b columns characters"] | None]:
        """Logits of the classes and of the characters of the crops of all heads."""
        logits = characters = None
        if self.classifier is not None and self.config.classifier is not None:
            whole, size = self.transformer.whole(image), self.config.classifier.input_size
            shown = [whole] if self.config.insert_at else transforms
            views = torch.cat([self.transformer.sample(image, each, size) for each in shown], dim=1)
            inside = self.config.insert_at > 0
            logits = self.read_inside(views, whole.inverse() @ transforms[0]) if inside else self.classifier(views)
        if self.reader is not None:
            characters = self.reader(self.transformer.sample(image, transforms[0], self.reader.config.input_size))
        return logits, characters

    def read_inside(self, view: Float[Tensor, "b c h w"], transform: Transform) -> Float[Tensor, "b classes"]:
        """Logits of a classifier that shows its features of the whole view through the transform."""
        classifier, levels = cast("CropClassifier", self.classifier), self.config.insert_at
        features = classifier.features(view, levels)
        seen = sample(features, transform, tuple(features.shape[2:]), resample="bilinear")
        return classifier.told(seen, levels)


class InsideLocalizer(nn.Module):
    """A localization net that sees what the first levels of a classifier make of an image."""

    def __init__(self, net: LocalizationNet, classifier: CropClassifier, levels: int) -> None:
        super().__init__()
        self.net, self.levels, self.config = net, levels, net.config
        self._classifier = (classifier,)  # not a part of this: its weights are counted once

    def forward(self, view: Float[Tensor, "b c h w"]) -> Pose:
        pose: Pose = self.net(self._classifier[0].features(view, self.levels))
        return pose


def channels_last(dims: int) -> torch.memory_format:
    """How images, or volumes, and the nets that see them lie in memory: convolutions are fastest so."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def _transformer(config: ModelConfig, classifier: nn.Module | None) -> SpatialTransformer:
    stages = [_stage(stage, config, classifier) for stage in config.stages]
    direction = None if config.direction is None else DirectionNet(config.direction)
    return SpatialTransformer(
        stages, config.crop_size, fit=config.fit, upright_odds=config.upright_odds, direction=direction
    )


def _stage(config: LocalizerConfig, model: ModelConfig, classifier: nn.Module | None) -> Stage:
    net = LocalizationNet(model.localizer(config))
    inside = InsideLocalizer(net, cast("CropClassifier", classifier), model.insert_at) if model.insert_at else None
    return Stage(inside or net, config.transform.spec, config.input_size, config.margin, config.repeat, config.looks)
