"""What a training run is told: frozen structures, read from a TOML file and saved with the run."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from stn_cli.errors import UsageError
from stn_cli.networks.config import DirectionConfig, LocalizerConfig, Size, TransformConfig
from stn_cli.training.text.config import TextConfig

Range = tuple[float, float]
Objective = Literal["straighten", "classify", "read"]
OBJECTIVES: tuple[Objective, ...] = ("straighten", "classify", "read")


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
        edges: share of opaque pictures whose edges show on a background. Of the rest one half are round pieces, the
            other fill the canvas: a net reads the pose off edges, if it can, and never learns to look at the picture.
            Most pictures whose border has one colour lie on ground of that colour instead.
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
    edges: float = 0.3

    def __post_init__(self) -> None:
        for name in ("pixels", "extent", "clutter", "clutter_size"):
            low, high = getattr(self, name)
            if low > high:
                raise UsageError(f"scene {self.name!r}: {name} runs from {low} to {high}; the lower end comes first")
        if self.pixels[0] < 8 or self.extent[0] <= 0 or min(self.plain, self.edges) < 0:
            raise UsageError(f"scene {self.name!r}: pixels ≥ 8, extent > 0, plain ≥ 0 and edges ≥ 0 are needed")
        if self.weight < 0 or self.clutter[0] < 0 or self.clutter_size[0] <= 0:
            raise UsageError(f"scene {self.name!r}: weight and clutter are not negative, clutter_size is positive")
        if not 0 <= self.perspective < 0.5 or max(self.reach, self.plain, self.edges) > 1 or self.reach < 0:
            raise UsageError(f"scene {self.name!r}: 0 ≤ perspective < 0.5 and reach, plain and edges ≤ 1 are needed")


class Augment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How training moves examples that are taken as they are; each within ± what is said.

    Attributes:
        rotation: degrees.
        scale: factor by which the image grows or shrinks; a third of that (in its logarithm) changes its aspect.
        shear: shear factor.
        shift: half sides of the image.
        light: share by which contrast and brightness change.
    """

    rotation: float = 10.0
    scale: float = 1.15
    shear: float = 0.1
    shift: float = 0.1
    light: float = 0.3

    def __post_init__(self) -> None:
        if min(self.rotation, self.shear, self.shift, self.light) < 0 or self.scale < 1 or self.light >= 1:
            raise UsageError("augment: rotation, shear and shift are not negative, scale is at least 1, 0 ≤ light < 1")


class Penalties(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of what keeps a transformer sane that learns from what stands behind it.

    Attributes:
        out_of_frame: how far points of the crop lie outside the image, in half sides, on average.
        fold: how far the map is from keeping its orientation, where it is near turning over.
        area: logarithm of the share of the image that the crop shows: a window no larger than what is needed.
    """

    out_of_frame: float = 1.0
    fold: float = 1.0
    area: float = 0.0

    def __post_init__(self) -> None:
        if min(self.out_of_frame, self.fold, self.area) < 0:
            raise UsageError("penalties are not negative")


_LAYOUTS_OF_WORDS = {None, "border 2x10", "ribbon 2x10"}


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run.

    Attributes:
        name: of the model.
        description: one line for its card and `stn models list`.
        objectives: `straighten` learns from the known pose, `classify` from the labels alone, `read` from
            transcriptions alone; they add up, by their weights.
        text: words that are rendered for training, from folders of fonts; instead of images and scenes.
        foreground: `ink` treats images as bright strokes on black, put on backgrounds of any colour; `opaque`
            treats them as pictures.
        scenes: what is done to the upright images; with none, images are taken as they are.
        augment: how images that are taken as they are differ from one epoch to the next.
        stages: localization nets in series; output classes come from the data.
        heads: transformers side by side, each with nets of its own; the classifier sees all their crops.
        insert_at: levels of the classifier before the transformer; 0: it stands before the image.
        fit: `letterbox` keeps the aspect of images that are taken as they are, `stretch` squeezes them into the canvas,
            as recognisers of words are used to.
        right: a pose counts as right when its border errs by less than this share of its height, on average; the
            confidence predicts that.
        upright_odds: as in `ModelConfig`; in training itself nothing is likelier upright.
        direction: as in `ModelConfig`; it learns where poses are known.
        canvas: side in pixels of the square image, or cubic volume, that the model sees in training.
        backbone: the classifier behind the transformer, if it is not ours: `torchvision:NAME`, or `module:function` of
            one's own; see `networks.backbones`.
        classifier_size, classifier_widths, classifier_hidden: of the classifier behind the transformer.
        alphabet, reader_size, reader_widths, reader_hidden: of the reader behind the transformer; an empty alphabet is
            that of the data.
        straighten_weight, classify_weight, read_weight: of the objectives.
        penalties: on transforms that no known pose supervises.
        batch_size, steps: a sample is drawn anew for each of batch_size × steps.
        learning_rate, localizer_scale: peak rate, and its factor for the localization nets.
        warmup: steps over which the rate rises to its peak.
        cooldown: share of the steps after these over which it falls to zero, at the end, along half a cosine.
        weight_decay, clip, ema: AdamW's decay; gradient norm; averaging of weights.
        accumulate: pieces in which a batch is computed, one after the other, where memory does not hold it whole.
        validate_every: steps between two validations.
        validation_samples: of distorted or rendered images; those that are taken as they are all take part.
        validation_share: of the images, held out by a hash of each where the data itself has no such part.
        labels, group_by: a table of labels, and what in a name says which images stay together; see
            `training.examples`.
        patience: validations without a better score after which the run ends; 0 for never.
        bypassed: the transformer is left out, for comparison: crops are the whole images.
        resample: how training reads its canvases. `bilinear` is faster, and right where they are smooth enough.
        precision: of the networks in training; geometry and sampling are always float32.
        start: name or folder of a checkpoint whose weights, where they fit, the run starts from; hidden units that
            never fire begin anew.
        frozen: so many of the first stages keep the weights that they start with, and later ones, and the direction
            net, learn from starts near the truth instead of from what those find. For rendered words.
        min_confidence, crop_margin, crop_resample, straight_within, second_look: what the model says of itself, as its
            header has them: which images `rectify` passes through unchanged, how far crops reach beyond the predicted
            frame and how they are read, and whether doubtful images are looked at twice.
        seed: of samples, initial weights and dropout.
    """

    name: str = "rectifier"
    description: str = ""
    objectives: tuple[Objective, ...] = ("straighten",)
    text: TextConfig | None = None
    foreground: Literal["ink", "opaque"] = "opaque"
    scenes: tuple[Scene, ...] = ()
    augment: Augment = Augment()
    stages: tuple[LocalizerConfig, ...] = (
        LocalizerConfig(transform=TransformConfig("similarity"), input_size=(48, 48), angle_bins=36),
    )
    heads: int = 1
    insert_at: int = 0
    fit: Literal["letterbox", "stretch"] = "letterbox"
    right: float = 0.1
    upright_odds: float = 0.0
    direction: DirectionConfig | None = None
    canvas: int = 60
    backbone: str = ""
    classifier_size: Size = (28, 28)
    classifier_widths: tuple[int, ...] = (16, 32, 64)
    classifier_hidden: int = 48
    alphabet: str = ""
    reader_size: tuple[int, int] = (32, 128)
    reader_widths: tuple[int, ...] = (32, 64, 96, 128)
    reader_hidden: int = 192
    straighten_weight: float = 1.0
    classify_weight: float = 1.0
    read_weight: float = 1.0
    penalties: Penalties = Penalties()
    batch_size: int = 128
    accumulate: int = 1
    steps: int = 4000
    learning_rate: float = 2e-3
    localizer_scale: float = 1.0
    warmup: int = 200
    cooldown: float = 1.0
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    validate_every: int = 500
    validation_samples: int = 2000
    validation_share: float = 0.1
    labels: str | None = None
    group_by: str | None = None
    patience: int = 0
    bypassed: bool = False
    resample: Literal["auto", "bilinear"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    start: str | None = None
    frozen: int = 0
    min_confidence: float = 0.0
    crop_margin: tuple[float, float] = (0.0, 0.0)
    crop_resample: Literal["sharp", "auto"] = "auto"
    straight_within: float = 0.0
    second_look: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise UsageError("a run trains one localization net at least: it needs stages")
        self._check_objectives()
        if min(self.batch_size, self.steps, self.accumulate, self.validate_every, self.validation_samples) < 1:
            raise UsageError("batch_size, steps, accumulate, validate_every and validation_samples are at least 1")
        if self.patience < 0:
            raise UsageError("patience is not negative")
        if self.scenes and not any(scene.weight > 0 for scene in self.scenes):
            raise UsageError("at least one scene needs a weight above 0")
        if self.canvas < 8 or self.seed < 0 or self.warmup < 0:
            raise UsageError("canvas is at least 8, seed and warmup are not negative")
        if not (0 < self.validation_share < 1 and 0 <= self.ema < 1 and 0 <= self.min_confidence <= 1):
            raise UsageError("0 < validation_share < 1, 0 ≤ ema < 1 and 0 ≤ min_confidence ≤ 1 are needed")
        if not 0 <= self.cooldown <= 1:
            raise UsageError("cooldown is a share of the steps, 0 to 1")
        if self.text is not None:
            self._check_text()
        most = len(self.stages) - (self.direction is None)
        if not 0 <= self.frozen <= most or (self.frozen and self.text is None):
            raise UsageError("frozen leaves a stage, or a direction net, to learn, and is 0 but for rendered words")
        if self.right <= 0 or min(*self.crop_margin, self.straight_within) < 0:
            raise UsageError("right is positive, crop_margin and straight_within are not negative")
        if min(self.straighten_weight, self.classify_weight, self.read_weight) < 0:
            raise UsageError("weights of objectives are not negative")
        if self.learning_rate <= 0 or self.clip <= 0 or self.weight_decay < 0 or self.localizer_scale < 0:
            raise UsageError("learning_rate and clip are positive, weight_decay and localizer_scale are not negative")

    def _check_text(self) -> None:
        if self.objectives != ("straighten",):
            raise UsageError("rendered words have no classes: their objective is straighten")
        if self.channels != 1:
            raise UsageError("rendered words are grey: the channels of all stages are 1")
        if not {stage.transform.layout for stage in self.stages} <= _LAYOUTS_OF_WORDS:
            raise UsageError("splines of rendered words have the layout border 2x10 or ribbon 2x10, as the words have")

    def _check_objectives(self) -> None:
        if not self.objectives or set(self.objectives) - set(OBJECTIVES):
            given = ", ".join(self.objectives) or "none"
            raise UsageError(f"objectives are straighten, classify and read, not {given}")
        if self.bypassed and "straighten" in self.objectives:
            raise UsageError("a bypassed transformer learns nothing: it is of runs that classify or read alone")
        if self.fit == "stretch" and (self.scenes or self.text is not None):
            raise UsageError("distorted and rendered images keep their aspect: fit is letterbox")
        if self.heads > 1 and self.objectives != ("classify",):
            raise UsageError(
                "several heads learn from classes alone, not from poses or texts",
                remedy="Leave --heads out, or say --objective classify where the images have classes.",
            )

    @property
    def channels(self) -> int:
        """Of what the nets see."""
        return self.stages[0].channels


def read_config(path: Path) -> TrainConfig:
    """The configuration in a TOML file; unknown or ill-typed entries are a UsageError that names them."""
    try:
        return msgspec.convert(read_entries(path), TrainConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error


def read_entries(path: Path) -> dict[str, Any]:
    """The entries of a TOML file, as they are; UsageError if it cannot be read, or is none."""
    try:
        entries: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    return entries
