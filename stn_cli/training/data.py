"""What a run trains on: samples for training, and held-out ones, whatever they are drawn from."""

from dataclasses import dataclass

from stn_cli.errors import TrainingDataError
from stn_cli.training.config import TrainConfig
from stn_cli.training.examples import Dataset, Examples
from stn_cli.training.samples import DistortedSamples, GivenSamples, Samples
from stn_cli.training.text.samples import Lettering, held_out_samples, training_samples
from stn_cli.training.volumes import DistortedVolumes, GivenVolumes

_VALIDATION_SEED_OFFSET = 1_000_003
_KINDS = {2: "images", 3: "volumes"}


@dataclass(frozen=True)
class TrainingData:
    """Samples to learn from, as many as a run takes, and held-out ones.

    Attributes:
        training, held_out: as said.
        test: images that nothing is chosen by; None if the data names none.
        classes: names of the classes in order, empty if there are none.
        alphabet: characters of the transcriptions, empty if there are none.
        described: what the data is, for the checkpoint's record of its training.
        fingerprint: the same for the same data.
    """

    training: Samples
    held_out: Samples
    classes: tuple[str, ...]
    alphabet: str
    described: dict[str, int]
    fingerprint: str
    test: Samples | None = None


def prepare(source: Dataset | Lettering, config: TrainConfig, *, workers: int = 1) -> TrainingData:
    """Distorts what is to be straightened, and renders what has to be rendered.

    Raises:
        TrainingDataError: the data lacks what an objective needs.
    """
    seeds = config.seed, config.seed + _VALIDATION_SEED_OFFSET
    lengths = config.steps * config.batch_size, config.validation_samples
    if isinstance(source, Dataset):
        check_objectives(source, config)
        made = _distorted if config.scenes else _given
        return TrainingData(
            made(source.train, config, seeds[0], lengths[0]),
            made(source.validation, config, seeds[1]),
            source.classes,
            config.alphabet,
            {"images": len(source.train)},
            source.fingerprint,
            made(source.test, config, seeds[1] + 1) if len(source.test) else None,
        )
    assert config.text is not None
    common = {"canvas": config.canvas, "workers": workers}
    return TrainingData(
        training_samples(source, config.text, seed=seeds[0], length=lengths[0], **common),
        held_out_samples(source, config.text, seed=seeds[1], length=lengths[1], **common),
        (),
        "",
        {"fonts": len(source.fonts), "words": len(source.words)},
        source.fingerprint,
    )


def _distorted(examples: Examples, config: TrainConfig, seed: int, length: int | None = None) -> Samples:
    kind = DistortedSamples if examples.dims == 2 else DistortedVolumes
    return kind(examples, config, seed=seed, length=length or config.validation_samples)


def _given(examples: Examples, config: TrainConfig, seed: int, length: int | None = None) -> Samples:
    kind = GivenSamples if examples.dims == 2 else GivenVolumes
    return kind(examples, config, seed=seed, length=length, moved=length is not None)


def check_objectives(source: Dataset, config: TrainConfig) -> None:
    """TrainingDataError unless the data has what the objectives need."""
    train = source.train
    if train.dims != len(config.stages[0].input_size):
        raise TrainingDataError(
            f"the data is {_KINDS[train.dims]}, the network is for {_KINDS[len(config.stages[0].input_size)]}",
            remedy="affine3d is the transform of volumes (.npy, TIFF of several pages), all others are of images.",
        )
    if "classify" in config.objectives:
        if len(source.classes) < 2:
            raise TrainingDataError(
                f"classify needs two classes or more; the data has {len(source.classes)}",
                remedy="Put the images into one folder for each class, or name classes in labels.tsv.",
            )
        if not (train.labels >= 0).any():
            raise TrainingDataError("classify needs images with a class; those of the training part have none")
    if "read" in config.objectives and not (any(train.texts) and config.alphabet):
        raise TrainingDataError(
            "read needs transcriptions; the data has none",
            remedy="Name them in labels.tsv (file, text), or in a .txt file beside each image.",
        )
    if "straighten" in config.objectives and not config.scenes and train.corners is None:
        raise TrainingDataError(
            "straighten needs true poses: scenes that distort upright images, or corners in the table of labels",
            remedy="Add a [[scenes]] table to the configuration.",
        )
