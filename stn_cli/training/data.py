"""What a run trains on: samples for training, and held-out ones, whatever they are drawn from."""

from dataclasses import dataclass

from stn_cli.training.config import TrainConfig
from stn_cli.training.samples import Samples, UprightSamples
from stn_cli.training.sources import Uprights
from stn_cli.training.text.samples import Lettering, held_out_samples, training_samples

_VALIDATION_SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class TrainingData:
    """Endless samples, and held-out ones.

    Attributes:
        training, held_out: as said.
        classes: names of the classes in order, empty if there are none.
        described: what the data is, for the checkpoint's record of its training.
    """

    training: Samples
    held_out: Samples
    classes: tuple[str, ...]
    described: dict[str, int]


def prepare(source: Uprights | Lettering, config: TrainConfig, *, workers: int = 1) -> TrainingData:
    """Splits the source, and renders what has to be rendered."""
    seeds = config.seed, config.seed + _VALIDATION_SEED_OFFSET
    lengths = config.steps * config.batch_size, config.validation_samples
    if isinstance(source, Uprights):
        training, held_out = source.split(config.validation_share)
        return TrainingData(
            UprightSamples(training, config, seed=seeds[0], length=lengths[0]),
            UprightSamples(held_out, config, seed=seeds[1], length=lengths[1]),
            source.classes,
            {"images": len(training.images)},
        )
    assert config.text is not None
    common = {"canvas": config.canvas, "workers": workers}
    return TrainingData(
        training_samples(source, config.text, seed=seeds[0], length=lengths[0], **common),
        held_out_samples(source, config.text, seed=seeds[1], length=lengths[1], **common),
        (),
        {"fonts": len(source.fonts), "words": len(source.words)},
    )
