"""What a run begins with: its model, the running average of that, and the optimizer."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stn_cli.networks.backbones import backbone
from stn_cli.networks.config import ClassifierConfig, ModelConfig, ReaderConfig
from stn_cli.networks.model import Rectifier
from stn_cli.training.config import TrainConfig


def model_config(config: TrainConfig, classes: tuple[str, ...]) -> ModelConfig:
    """The model that a run trains, given the classes that its data turned out to have."""
    classifier = reader = None
    if "classify" in config.objectives:
        classifier = ClassifierConfig(
            classes=classes,
            backbone=config.backbone,
            input_size=config.classifier_size,
            widths=config.classifier_widths,
            hidden=config.classifier_hidden,
            channels=config.channels,
        )
    if "read" in config.objectives:
        reader = ReaderConfig(
            alphabet=config.alphabet,
            input_size=config.reader_size,
            widths=config.reader_widths,
            hidden=config.reader_hidden,
            channels=config.channels,
        )
    return ModelConfig(
        stages=config.stages,
        heads=config.heads,
        insert_at=config.insert_at,
        fit=config.fit,
        classifier=classifier,
        reader=reader,
        upright_odds=config.upright_odds,
        direction=config.direction,
    )


def new_model(config: ModelConfig) -> Rectifier:
    """A model with weights drawn by torch's generator."""
    classifier = config.classifier
    if classifier is None or not classifier.backbone:
        return Rectifier(config)
    channels, size = config.heads * classifier.channels, classifier.input_size
    return Rectifier(
        config, backbone(classifier.backbone, classes=len(classifier.classes), channels=channels, size=size)
    )


def start_from(model: Rectifier, other: Rectifier) -> None:
    """Takes over the weights that have the same name and shape in both; the rest keeps its own start."""
    mine, theirs = model.state_dict(), other.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    model.load_state_dict({**mine, **fitting})


class MovingAverage(AveragedModel):
    """The exponential moving average of a model's weights; its decay grows, so that the random start is soon forgotten.

    It knows the tensors of both: to look them up at every step, as torch's own does, takes longer than to average them.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        weights = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages, self._weights = [mine for mine, _ in weights], [theirs for _, theirs in weights]

    @torch.no_grad()
    def follow(self) -> None:
        """Draws the average towards the weights as they are now."""
        updates = int(self.n_averaged)
        decay = min(self.decay, (1 + updates) / (10 + updates)) if updates else 0.0
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for mine, theirs in self._counts:
            mine.copy_(theirs)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def optimizer_of(model: Rectifier, config: TrainConfig) -> torch.optim.AdamW:
    """Localization nets have their own scale; weight decay spares biases and normalisation."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = config.localizer_scale if name.startswith(("transformer.", "others.")) else 1.0
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()],
        lr=config.learning_rate,
        fused=True,
    )
