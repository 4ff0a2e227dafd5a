"""What a training run is told: frozen structures, read from a TOML file and saved with the run."""

from pathlib import Path
from typing import Literal

import msgspec

from stn_cli.errors import UsageError
from stn_cli.networks.config import LocalizerConfig, TransformConfig
from stn_cli.training.text.config import TextConfig

Range = tuple[float, float]


class Scene(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges of one kind of distorted image. The truth is the transform from the upright frame to the canvas.

    Attributes:
        name: under which validation reports it.
        weight: how often it is drawn, against the other scenes.
        pixels: side of the square canvas at which it is drawn, before it is resized to the training canvas.
        rotation: degrees, drawn within ±rotation.
        extent: side of the upright frame as a share of the canvas, drawn log-uniformly.
        reach: 1 lets the frame's inner 20/28 lie anywhere on the canvas, 0 keeps it centred.
        shear: shear factor, drawn within ±shear.
        perspective: change of the homogeneous weight over half the frame, drawn within ±perspective.
        clutter: how many patches of other images lie about (of ink only).
        clutter_size: side of a patch as a share of the frame.
        plain: share of images left as they are: no colour, texture, blur or noise (of ink only).
    """

    name: str = "default"
    weight: float = 1.0
    pixels: tuple[int, int] = (32, 96)
    rotation: float = 45.0
    extent: Range = (0.5, 1.0)
    reach: float = 1.0
    shear: float = 0.0
    perspective: float = 0.0
    clutter: tuple[int, int] = (0, 0)
    clutter_size: Range = (0.15, 0.35)
    plain: float = 0.5

    def __post_init__(self) -> None:
        for name in ("pixels", "extent", "clutter", "clutter_size"):
            low, high = getattr(self, name)
            if low > high:
                raise UsageError(f"scene {self.name!r}: {name} runs from {low} to {high}; the lower end comes first")
        if self.pixels[0] < 8 or self.extent[0] <= 0 or not 0 <= self.plain <= 1:
            raise UsageError(f"scene {self.name!r}: pixels ≥ 8, extent > 0 and 0 ≤ plain ≤ 1 are needed")
        if self.weight < 0 or self.clutter[0] < 0 or self.clutter_size[0] <= 0:
            raise UsageError(f"scene {self.name!r}: weight and clutter are not negative, clutter_size is positive")
        if not 0 <= self.perspective < 0.5 or not 0 <= self.reach <= 1:
            raise UsageError(f"scene {self.name!r}: 0 ≤ perspective < 0.5 and 0 ≤ reach ≤ 1 are needed")


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run.

    Attributes:
        name: of the model.
        description: one line for its card and `stn models list`.
        objectives: `straighten` learns from the known distortion, `classify` from the labels alone; both add up.
        text: words that are rendered for training, from folders of fonts; instead of images and scenes.
        foreground: `ink` treats images as bright strokes on black, put on backgrounds of any colour; `opaque`
            treats them as pictures.
        scenes: what is done to the upright images; with none, images are taken as they are.
        stages: localization nets in series; output classes come from the data.
        right: a pose counts as right when its border errs by less than this share of its height, on average; the
            confidence predicts that.
        upright_odds: as in `ModelConfig`; in training itself nothing is likelier upright.
        canvas: side in pixels of the square image that the model sees in training.
        classifier_size, classifier_widths, classifier_hidden: of the classifier behind the transformer.
        classify_weight: weight of the classification loss against the geometric one.
        batch_size, steps: a sample is drawn anew for each of batch_size × steps.
        learning_rate, localizer_scale: peak rate, and its factor for the localization nets.
        warmup, weight_decay, clip, ema: steps of linear warm-up; AdamW's decay; gradient norm; averaging of weights.
        validate_every, validation_samples, validation_share: of the images, held out by position.
        resample: how training reads its canvases. `bilinear` is faster, and right where they are smooth enough.
        precision: of the networks in training; geometry and sampling are always float32.
        start: name or folder of a checkpoint whose weights, where they fit, the run starts from; hidden units that
            never fire begin anew.
        frozen: so many of the first stages keep the weights that they start with, and later ones learn from starts
            near the truth instead of from what those find. For rendered words.
        min_confidence, crop_margin, straight_within: what the model says of itself, as its header has them: which
            images `rectify` passes through unchanged, and how far crops reach beyond the predicted frame.
        seed: of samples, initial weights and dropout.
    """

    name: str = "rectifier"
    description: str = ""
    objectives: tuple[Literal["straighten", "classify"], ...] = ("straighten",)
    text: TextConfig | None = None
    foreground: Literal["ink", "opaque"] = "opaque"
    scenes: tuple[Scene, ...] = (Scene(),)
    stages: tuple[LocalizerConfig, ...] = (
        LocalizerConfig(transform=TransformConfig("similarity"), input_size=(48, 48), angle_bins=36),
    )
    right: float = 0.1
    upright_odds: float = 0.0
    canvas: int = 60
    classifier_size: tuple[int, int] = (28, 28)
    classifier_widths: tuple[int, ...] = (16, 32, 64)
    classifier_hidden: int = 48
    classify_weight: float = 0.1
    batch_size: int = 128
    steps: int = 4000
    learning_rate: float = 2e-3
    localizer_scale: float = 1.0
    warmup: int = 200
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    validate_every: int = 500
    validation_samples: int = 2000
    validation_share: float = 0.1
    resample: Literal["auto", "bilinear"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    start: str | None = None
    frozen: int = 0
    min_confidence: float = 0.0
    crop_margin: tuple[float, float] = (0.0, 0.0)
    straight_within: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.objectives or set(self.objectives) - {"straighten", "classify"}:
            raise UsageError(f"objectives are straighten and classify, not {', '.join(self.objectives) or 'none'}")
        if "straighten" in self.objectives and not self.scenes:
            raise UsageError("straighten needs at least one scene: it learns from distortions that it makes itself")
        if min(self.batch_size, self.steps, self.validate_every, self.validation_samples) < 1:
            raise UsageError("batch_size, steps, validate_every and validation_samples are at least 1")
        if self.scenes and not any(scene.weight > 0 for scene in self.scenes):
            raise UsageError("at least one scene needs a weight above 0")
        if self.canvas < 8 or self.seed < 0 or self.warmup < 0:
            raise UsageError("canvas is at least 8, seed and warmup are not negative")
        if not (0 < self.validation_share < 1 and 0 <= self.ema < 1 and 0 <= self.min_confidence <= 1):
            raise UsageError("0 < validation_share < 1, 0 ≤ ema < 1 and 0 ≤ min_confidence ≤ 1 are needed")
        if self.text is not None and self.objectives != ("straighten",):
            raise UsageError("rendered words have no classes: their objective is straighten")
        if not 0 <= self.frozen < len(self.stages) or (self.frozen and self.text is None):
            raise UsageError("frozen is less than the number of stages, and 0 but for rendered words")
        if self.right <= 0 or min(*self.crop_margin, self.straight_within) < 0:
            raise UsageError("right is positive, crop_margin and straight_within are not negative")
        if self.learning_rate <= 0 or self.clip <= 0 or self.weight_decay < 0 or self.localizer_scale < 0:
            raise UsageError("learning_rate and clip are positive, weight_decay and localizer_scale are not negative")


def read_config(path: Path) -> TrainConfig:
    """The configuration in a TOML file; unknown or ill-typed entries are a UsageError that names them."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=TrainConfig)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
