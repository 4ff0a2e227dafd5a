"""The rectifier that a checkpoint holds: a spatial transformer, and perhaps nets behind it that read the crop."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stn_cli.geometry import Transform
from stn_cli.networks.classifier import CropClassifier
from stn_cli.networks.config import LocalizerConfig, ModelConfig
from stn_cli.networks.localization import LocalizationNet
from stn_cli.networks.reader import CropReader
from stn_cli.networks.transformer import Located, SpatialTransformer, Stage, Start


class Rectified(NamedTuple):
    """What the model makes of a batch; `logits` and `characters` are None where it has no classifier or no reader."""

    located: Located
    logits: Float[Tensor, "b classes"] | None
    characters: Float[Tensor, "b columns characters"] | None


class Rectifier(nn.Module):
    """Localize, sample, classify or read."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = SpatialTransformer(
            [_stage(stage) for stage in config.stages],
            config.crop_size,
            fit=config.fit,
            upright_odds=config.upright_odds,
        )
        self.classifier = CropClassifier(config.classifier) if config.classifier else None
        self.reader = CropReader(config.reader) if config.reader else None

    def forward(
        self,
        image: Float[Tensor, "b c h w"],
        *,
        detach: bool = False,
        start: Start | None = None,
        skip: int = 0,
        bypass: bool = False,
    ) -> Rectified:
        """`bypass` reads the whole image, as if that were what the transformer had found; the rest is for `locate`."""
        if bypass:
            whole = self.transformer.whole(image)
            located = Located((whole,), (whole,), ())
        else:
            located = self.transformer.locate(image, detach=detach, start=start, skip=skip)
        return Rectified(located, *self.read(image, located.transform))

    def read(self, image: Float[Tensor, "b c h w"], transform: Transform) -> tuple[Tensor | None, Tensor | None]:
        """Logits of the classes and of the characters of the crop."""
        sample = self.transformer.sample
        logits = characters = None
        if self.classifier is not None:
            logits = self.classifier(sample(image, transform, self.classifier.config.input_size))
        if self.reader is not None:
            characters = self.reader(sample(image, transform, self.reader.config.input_size))
        return logits, characters


def decoded(characters: Float[Tensor, "b columns characters"], alphabet: str) -> list[str]:
    """The most probable characters of the columns, repetitions and blanks left out (CTC; Graves et al. 2006)."""
    best = characters.argmax(dim=2)
    kept = (best != 0) & (best != torch.nn.functional.pad(best, (1, 0), value=0)[:, :-1])
    rows = zip(best.tolist(), kept.tolist(), strict=True)
    return ["".join(alphabet[number - 1] for number, keep in zip(*row, strict=True) if keep) for row in rows]


def _stage(config: LocalizerConfig) -> Stage:
    return Stage(LocalizationNet(config), config.transform.spec, config.input_size, config.margin, config.repeat)
