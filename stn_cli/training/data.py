"""What a run trains on: samples for training, and held-out ones, whatever they are drawn from."""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np

from stn_cli.errors import TrainingDataError
from stn_cli.networks.config import ReaderConfig
from stn_cli.training.config import TrainConfig
from stn_cli.training.examples import Dataset, Examples, Problem
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
        described: what the data is, for the checkpoint's record of its training.
        fingerprint: the same for the same data.
    """

    training: Samples
    held_out: Samples
    classes: tuple[str, ...]
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
        {"fonts": len(source.fonts), "words": len(source.words)},
        source.fingerprint,
    )


def _distorted(examples: Examples, config: TrainConfig, seed: int, length: int | None = None) -> Samples:
    kind = DistortedSamples if examples.dims == 2 else DistortedVolumes
    return kind(examples, config, seed=seed, length=length or config.validation_samples)


def _given(examples: Examples, config: TrainConfig, seed: int, length: int | None = None) -> Samples:
    kind = GivenSamples if examples.dims == 2 else GivenVolumes
    return kind(examples, config, seed=seed, length=length, moved=length is not None)


def with_problems(source: Dataset, config: TrainConfig) -> Dataset:
    """The data, with what of it this run cannot use among its problems."""
    if "read" not in config.objectives:
        return source
    columns = ReaderConfig(alphabet=config.alphabet, input_size=config.reader_size).columns
    texts = [text for part in (source.train, source.validation) for text in part.texts if text]
    long = tuple(sorted({text for text in texts if _columns_needed(text) > columns}))
    if not long:
        return source
    what = f"the text is longer than the {columns} columns of the reader: nothing is learned from it"
    problem = Problem(what, "Let it see a wider crop, as with --output 32x256.", long)
    return dataclasses.replace(source, problems=(*source.problems, problem))


def _columns_needed(text: str) -> int:
    """One for each character, and one between two that are equal (Graves et al. 2006)."""
    return len(text) + sum(a == b for a, b in itertools.pairwise(text))


def check_objectives(source: Dataset, config: TrainConfig) -> None:
    """TrainingDataError unless the data has what the objectives need."""
    _check_part(source, source.train, config, "training")
    _check_part(source, source.validation, config, "validation")


def _check_part(source: Dataset, of: Examples, config: TrainConfig, part: str) -> None:
    if of.dims != len(config.stages[0].input_size):
        raise TrainingDataError(
            f"the data is {_KINDS[of.dims]}, the network is for {_KINDS[len(config.stages[0].input_size)]}",
            remedy="affine3d is the transform of volumes (.npy, TIFF of several pages), all others are of images.",
        )
    if "classify" in config.objectives:
        if len(source.classes) < 2:
            raise TrainingDataError(
                f"classify needs two classes or more; the data has {len(source.classes)}",
                remedy="Put the images into one folder for each class, or name classes in labels.tsv.",
            )
        if not (of.labels >= 0).any():
            raise TrainingDataError(f"classify needs images with a class; those of the {part} part have none")
    if "read" in config.objectives and not (any(of.texts) and config.alphabet):
        raise TrainingDataError(
            f"read needs transcriptions; the {part} part has none",
            remedy="Name them in labels.tsv (file, text), or in a .txt file beside each image.",
        )
    known = of.corners is not None and bool(np.isfinite(of.corners).any())
    is_optional = part == "validation" and len(config.objectives) > 1
    if "straighten" in config.objectives and not config.scenes and not known and not is_optional:
        raise TrainingDataError(
            f"straighten needs true poses, of the {part} part, too: scenes that distort upright images, or corners in"
            " the table of labels",
            remedy="State the corners of more images, name the parts, or add a [[scenes]] table to the configuration.",
        )
