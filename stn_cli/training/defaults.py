"""The configuration that suits a dataset, as far as nobody says otherwise."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from stn_cli.checkpoints import open_checkpoint
from stn_cli.errors import UsageError
from stn_cli.networks.backbones import is_function, needs_colours
from stn_cli.networks.config import Limits, LocalizerConfig, ModelConfig, Size, TransformConfig
from stn_cli.training.config import Objective, Scene, TrainConfig
from stn_cli.training.examples import Dataset, Examples

_LEAST_SIDE, _MOST_SIDE = 28, 64
WIDTH_OF_WORDS = 128
_LEAST_SIDE_OF_VOLUMES, _MOST_SIDE_OF_VOLUMES = 16, 32
_OF_VOLUMES: dict[str, Any] = {"widths": (16, 32, 48, 64), "hidden": 128, "channels": 1}
_OBLONG = 1.2
_DEFAULT_LAYOUT = "grid 4x4"
_EPOCHS, _LEAST_STEPS, _MOST_STEPS = 30, 2000, 30_000


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a person says of the network in a few words.

    Attributes:
        transform: the family of transforms.
        stages: localization nets in series, or passes of one net if they are `shared`.
        heads: transformers side by side; None: as many as are said elsewhere, or one.
        input_size: (height, width) of what the localization net sees.
        output_size: (height, width) of the crop that is classified or read.
    """

    transform: TransformConfig | None = None
    stages: int = 1
    shared: bool = False
    heads: int | None = None
    input_size: Size | None = None
    output_size: Size | None = None

    @property
    def of_transformer(self) -> bool:
        """Whether they describe localization nets."""
        return self.transform is not None or self.stages != 1 or self.input_size is not None


def transform_called(name: str) -> TransformConfig:
    """`affine`, `tps`, `tps:grid 5x5`…; UsageError for what is none."""
    kind, _, layout = name.partition(":")
    if kind == "tps":
        layout = layout or _DEFAULT_LAYOUT
    try:
        return msgspec.convert({"kind": kind, "layout": layout or None}, TransformConfig)
    except msgspec.ValidationError as error:
        kinds = "translation, attention, similarity, affine, projective, tps, affine3d (of volumes)"
        raise UsageError(
            f"there is no transform {name!r}", remedy=f"One of {kinds}, or tps:border 2x10 for a layout of its own."
        ) from error


def objectives_of(dataset: Dataset) -> tuple[Objective, ...]:
    """What the data lends itself to: transcriptions are read, classes told apart, anything else straightened."""
    if dataset.train.alphabet:
        return ("read",)
    if len(dataset.classes) > 1:
        return ("classify",)
    return ("straighten",)


def suited(dataset: Dataset, given: dict[str, Any], wishes: Wishes | None = None) -> TrainConfig:
    """A configuration for the data, with what is given laid over it.

    Args:
        dataset: what there is to learn from.
        given: entries of `TrainConfig` as plain data.
        wishes: on the network; they go before what is given.

    Raises:
        UsageError: what is given does not fit together.
    """
    wishes = wishes or Wishes()
    if given.get("stages") and wishes.of_transformer:
        raise UsageError(
            "[[stages]] of the configuration and the options on transform, stages and input describe the same network",
            remedy="Leave one of the two out.",
        )
    objectives = tuple(given.get("objectives") or objectives_of(dataset))
    if given.get("backbone") and "classify" not in objectives:
        raise UsageError("a backbone classifies, but this run does not learn from classes")
    if wishes.transform is None and dataset.train.dims == 3 and not given.get("start"):
        wishes = dataclasses.replace(wishes, transform=TransformConfig("affine3d"))
    chosen: dict[str, Any] = {
        "objectives": objectives,
        "foreground": dataset.train.foreground,
        "alphabet": dataset.train.alphabet if "read" in objectives else "",
        "canvas": _canvas(dataset, objectives, wishes),
    }
    start = open_checkpoint(given["start"]).header.model if given.get("start") else None
    if start is None or wishes.of_transformer:
        if "straighten" in objectives:
            chosen |= _straightening(dataset, chosen["canvas"], wishes)
        else:
            colours = needs_colours(given.get("backbone", ""))
            chosen |= _weakly_supervised(dataset, objectives, chosen["canvas"], wishes, colours=colours)
            if given.get("insert_at") and wishes.input_size is None:  # its net is shown what the classifier is
                size = tuple(
                    {**chosen, **given}["classifier_size"] if wishes.output_size is None else wishes.output_size
                )
                chosen["stages"] = tuple(msgspec.structs.replace(each, input_size=size) for each in chosen["stages"])
    if start is not None:
        chosen |= _taken_over(start, chosen if wishes.of_transformer else {})
        if "classify" in objectives and is_function(chosen.get("backbone", "")) and not given.get("backbone"):
            raise UsageError(
                f"the model to go on from has a classifier that {chosen['backbone']} makes, and it may call nothing",
                remedy=f"If it is yours, say so: --backbone {chosen['backbone']}.",
            )
        if "classify" in objectives and start.classifier is None:
            chosen["classifier_size"] = _sides(chosen["canvas"], 40, start.stages[0].transform)
    if "straighten" in objectives and dataset.train.corners is None:
        chosen |= {"scenes": (Scene(),), "fit": "letterbox"}
    try:
        return msgspec.convert({**msgspec.to_builtins(chosen), **given, **_asked(objectives, wishes)}, TrainConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"these options do not fit together: {error}") from error


def _asked(objectives: tuple[Objective, ...], wishes: Wishes) -> dict[str, Any]:
    """What the wishes say outright."""
    parts = {"classify": "classifier_size", "read": "reader_size"}
    if wishes.output_size and not parts.keys() & set(objectives):
        raise UsageError(
            "--output is the size of the crop that a classifier or a reader sees, and this run has neither",
            remedy="Leave it out: crops have as many pixels as what they show. `stn rectify --size` makes others.",
        )
    sizes = {parts[objective]: wishes.output_size for objective in objectives if objective in parts}
    return {**(sizes if wishes.output_size else {}), **({"heads": wishes.heads} if wishes.heads else {})}


def _canvas(dataset: Dataset, objectives: tuple[Objective, ...], wishes: Wishes) -> int:
    """As large as most images are, in fours: what is smaller shows less, what is larger takes longer."""
    typical = float(np.median([max(image.shape[:-1]) for image in dataset.train.images]))
    fours = 4 * math.ceil(typical / 4)
    if dataset.train.dims == 3:
        side = int(np.clip(fours, _LEAST_SIDE_OF_VOLUMES, _MOST_SIDE_OF_VOLUMES))
    elif "straighten" in objectives:
        side = 60
    elif "read" in objectives:
        side = WIDTH_OF_WORDS
    else:
        side = int(np.clip(fours, _LEAST_SIDE, _MOST_SIDE))
    return max(side, *(wishes.input_size or ()), *(wishes.output_size or ()), 0)


def _straightening(dataset: Dataset, canvas: int, wishes: Wishes) -> dict[str, Any]:
    """Poses are known: the angle is voted on, and nothing needs to be bounded that cannot be.

    Crops of similarities have the aspect of what the nets see, a square; frames that have another need an affine map.
    """
    transform = wishes.transform or TransformConfig("affine" if _are_oblong(dataset.train) else "similarity")
    size = wishes.input_size or _sides(canvas, 48, transform)
    settings: dict[str, Any] = {"transform": transform, "input_size": size}
    settings |= _OF_VOLUMES if transform.kind == "affine3d" else {}
    settings |= {"angle_bins": 36} if transform.kind in ("similarity", "affine") else {"limits": Limits()}
    of_volumes = {"batch_size": 64, "steps": 3000, "cooldown": 0.3, "classifier_size": _sides(canvas, 40, transform)}
    stages = _in_series(LocalizerConfig(**settings), wishes)
    return {"stages": stages, **(of_volumes if transform.kind == "affine3d" else {})}


def _are_oblong(examples: Examples) -> bool:
    """Whether most true frames are far from square."""
    if examples.corners is None or examples.dims == 3:
        return False
    sides = np.array([image.shape[1::-1] for image in examples.images]) / 2
    upper_left, upper_right, lower_left = np.moveaxis(examples.corners * sides[:, None, :], 1, 0)[:3]
    width, height = (np.linalg.norm(end - upper_left, axis=1) for end in (upper_right, lower_left))
    with np.errstate(invalid="ignore"):
        aspects = np.maximum(width, height) / np.minimum(width, height)
    return bool(np.isfinite(aspects).any()) and float(np.nanmedian(aspects)) > _OBLONG


def _weakly_supervised(
    dataset: Dataset, objectives: tuple[Objective, ...], canvas: int, wishes: Wishes, *, colours: bool
) -> dict[str, Any]:
    """For transformers that learn from labels alone; the nets see `colours` whatever the images have."""
    transform = wishes.transform or TransformConfig("affine")
    size = wishes.input_size or _sides(canvas, 48, transform)
    is_small, grey = min(size) < 40, dataset.train.is_grey
    stage = LocalizerConfig(
        transform=transform,
        input_size=size,
        widths=(8, 16, 32) if is_small else (16, 32, 48, 64),
        hidden=32 if is_small else 64,
        channels=1 if grey and not colours else 3,
        limits=Limits(),
    )
    batch_size = 64 if "read" in objectives or transform.kind == "affine3d" else 256
    return {
        "stages": _in_series(stage, wishes),
        "fit": "stretch" if "read" in objectives else "letterbox",
        "classifier_size": _sides(canvas, 40, transform),
        "classifier_widths": (16, 32, 64) if grey and is_small else (32, 64, 128),
        "classifier_hidden": 64 if grey and is_small else 128,
        "batch_size": batch_size,
        "learning_rate": 3e-3,
        "localizer_scale": 0.3,
        "steps": int(np.clip(_EPOCHS * len(dataset.train) / batch_size, _LEAST_STEPS, _MOST_STEPS)),
    }


def _taken_over(model: ModelConfig, chosen: dict[str, Any]) -> dict[str, Any]:
    """The architecture that a run starts from, so that its weights fit; with the transformer of `chosen`, if any."""
    taken: dict[str, Any] = {name: getattr(model, name) for name in ("fit", "heads", "insert_at", "stages")}
    if chosen:
        same = {"channels": model.channels}
        taken |= {"stages": tuple(msgspec.structs.replace(stage, **same) for stage in chosen["stages"])}
    else:
        taken |= {"upright_odds": model.upright_odds, "direction": model.direction}
    for name, net in (("classifier", model.classifier), ("reader", model.reader)):
        if net is not None:
            taken |= {f"{name}_{part}": getattr(net, f) for part, f in _NET_PARTS.items()}
    if model.classifier is not None:
        taken |= {"backbone": model.classifier.backbone}
    return taken


_NET_PARTS = {"size": "input_size", "widths": "widths", "hidden": "hidden"}


def _in_series(stage: LocalizerConfig, wishes: Wishes) -> tuple[LocalizerConfig, ...]:
    if wishes.shared:
        return (msgspec.structs.replace(stage, repeat=wishes.stages),)
    return (stage,) * wishes.stages


def _sides(side: int, most: int, transform: TransformConfig) -> Size:
    """Of a square, or a cube."""
    return (min(side, most),) * (3 if transform.kind == "affine3d" else 2)
