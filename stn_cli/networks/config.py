"""What a model is made of: plain data that travels with the weights. Neither torch nor NumPy here."""

import math
import re
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from stn_cli.errors import UsageError
from stn_cli.networks.sequence import SequenceConfig

if TYPE_CHECKING:
    from stn_cli.geometry import TransformSpec

Size = tuple[int, ...]
"""(height, width) of what nets of images see; (depth, height, width) of what those of volumes do."""
Kind = Literal["translation", "attention", "similarity", "affine", "projective", "affine3d", "tps"]
_LAYOUT = re.compile(r"grid (\d+)x\1|(?:border|ribbon) 2x(\d+)|inset 2x(\d+) by (0(?:\.\d+)?) on (\d{1,4})x(\d{1,4})")
_MOST_CONTROL_POINTS_A_ROW = 64
_MOST_REPEATS = 8
_MOST_ODDS = 20
_MOST_HEADS = 8
MOST_ELEMENTS = 1 << 26
"""Of what a net holds or computes for a single image, in one piece."""


class TransformConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A family of transforms as configurations name it.

    Attributes:
        kind: the family.
        layout: `grid NxN`, `border 2xN`, `ribbon 2xN` or `inset 2xN by MARGIN on HxW`, N of 2 to 64; of `tps`, and of
            no other.
    """

    kind: Kind
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):  # which is checked of what is read, not of what is called
            raise UsageError(f"there is no transform {self.kind!r}; there are {', '.join(get_args(Kind))}")
        if self.kind != "tps" and self.layout is not None:
            raise UsageError("a layout belongs to tps, and to no other transform")
        if self.kind == "tps":
            match = _LAYOUT.fullmatch(self.layout or "")
            if match is None or not 2 <= int(match[1] or match[2] or match[3]) <= _MOST_CONTROL_POINTS_A_ROW:
                raise UsageError(
                    f"layout {self.layout!r} is not 'grid NxN', 'border 2xN' or 'ribbon 2xN' with N of 2 to 64"
                )
            if match[4] and not (float(match[4]) < 0.5 and min(int(match[5]), int(match[6])) >= 2):
                raise UsageError(f"layout {self.layout!r}: the margin is below 0.5, of two rows and columns or more")

    @property
    def spec(self) -> "TransformSpec":
        """The family itself."""
        from stn_cli.geometry import TransformSpec  # noqa: PLC0415  configurations are read without NumPy

        return TransformSpec(self.kind, self.layout)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far one localization net can go from the identity.

    Attributes:
        zoom: factor by which a side of the crop shows more, or less, than the whole.
        turn: degrees.
        shear: shear factor.
        shift: of the middle, in half sides of the image.
        perspective: change of the homogeneous weight from the middle to a border.
        bend: of each coordinate of a control point, in half sides.
    """

    zoom: float = 8.0
    turn: float = 180.0
    shear: float = 0.7
    shift: float = 1.0
    perspective: float = 0.4
    bend: float = 0.7

    def __post_init__(self) -> None:
        if not (1 < self.zoom <= 1000 and 0 < self.perspective < 0.5):
            raise UsageError("limits: 1 < zoom ≤ 1000 and 0 < perspective < 0.5 are needed")
        if not all(0 < limit < math.inf for limit in (self.turn, self.shear, self.shift, self.bend)):
            raise UsageError("limits: turn, shear, shift and bend are positive, and finite")


class LocalizerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One localization net.

    Attributes:
        transform: the family whose θ it predicts.
        input_size: of what it sees; every level of the trunk halves it.
        trunk: `conv`, `fc` (fully connected), or `sequence`, which has its layers there.
        widths: channels of the convolutional levels, or units of the fully connected layers.
        hidden: units between trunk and head.
        channels: of what it sees: 3 for colours, 1 for their luminance.
        margin: it sees the region found so far enlarged by this factor.
        limits: of the parameters, by what they mean.
        bound: without limits, no entry of θ moves further than this from the identity (tanh); 0 for no bound.
        angle_bins: bins over the full circle that vote on the angle of a similarity or an affine map; of a spline,
            two that vote on which way is up. With 0 there are no votes, and the angle is regressed.
        angle_window: degrees; where votes stand for probabilities, which their own loss alone teaches them, the angle
            is the one with most of them in a window that reaches so far to either side, in whole bins: it errs seldom
            by more than that. Labels and texts do not teach it. With 0 it is the mean of the votes within a right angle
            of the strongest, and all teach it.
        pooled_votes: the votes come from what the trunk sees before its last level, averaged along the width: letters
            tell which way is up wherever they stand. Of a `conv` trunk.
        repeat: how often it refines what it found itself, all told.
        looks: degrees by which it turns what it is shown, once it has learned: the angle of a similarity is that on
            which the votes of all these looks agree. Whole bins, and 0 the first: all but the angle is what that says.
    """

    transform: TransformConfig
    input_size: Size
    trunk: Literal["conv", "fc", "sequence"] = "conv"
    sequence: SequenceConfig | None = None
    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    hidden: int = 128
    channels: int = 3
    margin: float = 1.0
    limits: Limits | None = None
    bound: float = 2.0
    angle_bins: int = 0
    angle_window: float = 0.0
    pooled_votes: bool = False
    repeat: int = 1
    looks: tuple[float, ...] = (0.0,)

    @property
    def votes_on_up(self) -> bool:
        """It has an opinion on whether what it was shown is upside down, apart from its θ."""
        return self.transform.kind == "tps" and self.angle_bins > 0

    def __post_init__(self) -> None:
        self._check_votes()
        if not 1 <= self.repeat <= _MOST_REPEATS:
            raise UsageError(f"repeat is 1 to {_MOST_REPEATS}")
        if (self.trunk == "sequence") != (self.sequence is not None):
            raise UsageError("a trunk that is a sequence has one, and no other has")
        if self.sequence is not None and len(self.input_size) != 2:
            raise UsageError("a sequence sees images, not volumes")
        if not (0.1 <= self.margin <= 10 and 0 <= self.bound < math.inf):
            raise UsageError("margin is 0.1 to 10; bound is not negative, and finite: 0 is none")
        if min(self.hidden, self.channels) < 1 or self.angle_bins < 0:
            raise UsageError("hidden and channels are at least 1, angle_bins at least 0")
        _check_sides(self.input_size)
        if (self.transform.kind == "affine3d") != (len(self.input_size) == 3):
            raise UsageError("affine3d is the transform of volumes: its net sees DxHxW, those of all others HxW")
        if self.sequence is None:
            _check_levels(self.widths, self.input_size)
        elif self.sequence.shapes(self.input_size)[-1] != (self.hidden,) or len(self.sequence.mean) != self.channels:
            raise UsageError("the layers of a sequence end in `hidden` units, and begin with `channels`")
        self._check_looks()

    def _check_looks(self) -> None:
        bins = [look * self.angle_bins / 360 for look in self.looks]
        are_whole = all(abs(look) <= 180 and each.is_integer() for look, each in zip(self.looks, bins, strict=True))
        if bins[:1] != [0.0] or len(bins) > _MOST_REPEATS or not are_whole:
            raise UsageError(f"looks are 1 to {_MOST_REPEATS} angles up to 180, 0 the first, all of whole angle_bins")
        if bins != [0.0] and (self.transform.kind != "similarity" or not self.angle_bins):
            raise UsageError("several looks are taken by similarities whose angle_bins vote on the angle")

    def _check_votes(self) -> None:
        if self.angle_bins and self.transform.kind not in ("similarity", "affine", "tps"):
            raise UsageError("angle_bins vote on the angle of similarities, affine maps and splines alone")
        if self.angle_bins and self.limits is not None:
            raise UsageError("limits are of nets without angle_bins: votes have no bound")
        if self.angle_bins not in (0, 2) and self.transform.kind == "tps":
            raise UsageError("a spline has two angle_bins, for which way is up, or none")
        if not (self.angle_window == 0 or 360 <= self.angle_window * self.angle_bins <= 45 * self.angle_bins):
            raise UsageError("angle_window is at least as wide as one of the angle_bins, and 45 degrees at most")
        if self.pooled_votes and (self.trunk != "conv" or len(self.widths) < 2 or not self.angle_bins):
            raise UsageError("pooled_votes need angle_bins and a conv trunk of two widths at least")


class ClassifierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A classifier of the rectified crop.

    Attributes:
        classes: in order.
        backbone: name of a network that is not ours, see `networks.backbones`; a checkpoint has what it computes, in
            ONNX, but not its weights. Empty: convolutional levels of our own, and a hidden layer.
        input_size: of what it sees.
        widths, hidden: channels of the levels, and hidden units.
        channels: of what it sees.
    """

    classes: tuple[str, ...]
    backbone: str = ""
    input_size: Size = (28, 28)
    widths: tuple[int, ...] = (24, 48, 64)
    hidden: int = 64
    channels: int = 3

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise UsageError("a classifier needs two classes or more, each with a name of its own")
        if min(self.hidden, self.channels) < 1:
            raise UsageError("hidden and channels are at least 1")
        _check_sides(self.input_size)
        if not self.backbone:
            _check_levels(self.widths, self.input_size)


class ReaderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recogniser of words in the rectified crop.

    Attributes:
        alphabet: the characters that it knows.
        input_size: (height, width) of what it sees; every level halves the height, the first two the width.
        widths: channels of the levels.
        hidden: channels along the line.
        channels: of what it sees.
    """

    alphabet: str
    input_size: tuple[int, int] = (32, 128)
    widths: tuple[int, ...] = (32, 64, 96, 128)
    hidden: int = 192
    channels: int = 3

    def __post_init__(self) -> None:
        if not self.alphabet or len(set(self.alphabet)) < len(self.alphabet):
            raise UsageError("a reader needs an alphabet, each character once")
        if min(self.hidden, self.channels) < 1 or len(self.widths) < 2:
            raise UsageError("a reader has hidden and channels of 1 at least, and two widths at least")
        _check_levels(self.widths, (self.input_size[0], 1 << len(self.widths)))
        if self.input_size[1] < 4:
            raise UsageError("a reader sees 4 columns at least")

    @property
    def rows(self) -> int:
        """Of what the last level sees."""
        return -(-self.input_size[0] // (1 << len(self.widths)))

    @property
    def columns(self) -> int:
        """In which it can tell a character, or none."""
        return -(-self.input_size[1] // 4)


class DirectionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A net that is asked which way a straightened line is up, where the votes of the splines leave doubt.

    Attributes:
        input_size: of what it sees.
        widths: channels of the levels, and of the last convolution; each level but the first halves the size.
        blocks: residual blocks before the last convolution.
        hidden: units between what is averaged along the line and the log-odds.
        channels: of what it sees.
        margin: it sees the region found, enlarged by this factor.
        doubt: log-odds either way below which it is asked.
    """

    input_size: Size = (32, 128)
    widths: tuple[int, ...] = (32, 64, 96, 128)
    blocks: int = 2
    hidden: int = 64
    channels: int = 3
    margin: float = 1.2
    doubt: float = 6.0

    def __post_init__(self) -> None:
        if min(self.hidden, self.channels) < 1 or self.blocks < 0 or len(self.widths) < 2:
            raise UsageError("a direction net has hidden and channels of 1 at least, two widths at least, and blocks")
        if not (0.1 <= self.margin <= 10 and 0 <= self.doubt < math.inf):
            raise UsageError("a direction net has a margin of 0.1 to 10; doubt is not negative, and finite")
        _check_sides(self.input_size)
        _check_levels(self.widths[:-1], self.input_size)


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rectifier of images, or of volumes: localization nets in series, and perhaps a classifier behind them.

    All see RGB, or all see its luminance; volumes have one channel.

    Attributes:
        stages: each refines the composed transform of those before it.
        heads: transformers side by side, each with nets of its own for these stages; the classifier sees their crops
            joined along the channels (Jaderberg et al. 2015, section 4.3).
        insert_at: levels of the classifier before the transformer, which then samples their features, and whose net
            sees these (section 3.4); 0: it stands before the image, and samples that.
        fit: how the first stage sees an image: `letterbox` keeps its aspect, `stretch` squeezes it.
        upright_odds: log-odds that what is shown stands upright in its image rather than upside down, where splines
            vote on that; they fade towards a right angle.
        direction: is asked which way is up where these votes leave doubt.
        classifier: tells the class of the crop.
        reader: tells the word in the crop.
    """

    stages: tuple[LocalizerConfig, ...]
    heads: int = 1
    insert_at: int = 0
    fit: Literal["letterbox", "stretch"] = "letterbox"
    upright_odds: float = 0.0
    direction: DirectionConfig | None = None
    classifier: ClassifierConfig | None = None
    reader: ReaderConfig | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise UsageError("a model needs at least one localization net")
        if not 1 <= self.heads <= _MOST_HEADS:
            raise UsageError(f"heads is 1 to {_MOST_HEADS}")
        if self.heads > 1 and (self.classifier is None or self.reader is not None):
            raise UsageError("several heads need a classifier that joins their crops, and no reader")
        if self.insert_at:
            self._check_inside()
        if not 0 <= self.upright_odds <= _MOST_ODDS:
            raise UsageError(f"upright_odds is 0 to {_MOST_ODDS}")
        if any(stage.votes_on_up for stage in self.stages) and not self.stages[-1].votes_on_up:
            raise UsageError(
                "where a stage votes on which way is up, the last one does, too: confidence is of its vote"
            )
        if self.direction is not None and (self.heads > 1 or self.insert_at or not self.stages[-1].votes_on_up):
            raise UsageError(
                "a direction net is for one transformer before the image, whose last stage votes on which way is up"
            )
        sizes = [stage.input_size for stage in self.stages]
        sizes += [net.input_size for net in (self.direction, self.classifier) if net is not None]
        if {len(size) for size in sizes} != {self.dims}:
            raise UsageError("all nets of a model see images (HxW), or all see volumes (DxHxW)")
        if self.dims == 3 and (self.insert_at or self.reader or self.channels != 1):
            raise UsageError("volumes have one channel, no reader, and no transformer inside a classifier")
        channels = {stage.channels for stage in self.stages}
        channels |= {net.channels for net in (self.direction, self.classifier, self.reader) if net is not None}
        if channels not in ({1}, {3}):
            raise UsageError("the nets of a model all see colours (channels = 3) or all luminance (channels = 1)")

    def _check_inside(self) -> None:
        classifier, stage = self.classifier, self.stages[0]
        if classifier is None or classifier.backbone or not 0 < self.insert_at < len(classifier.widths):
            most = len(classifier.widths) - 1 if classifier is not None and not classifier.backbone else 0
            raise UsageError(f"insert_at is 0 to {most} here: levels of a classifier of our own, one of them behind it")
        if (
            len(self.stages) > 1
            or self.heads > 1
            or self.reader
            or stage.repeat > 1
            or stage.margin != 1
            or len(stage.looks) > 1
        ):
            raise UsageError("inside a classifier stands a transformer of one stage that looks once, without margin")
        if stage.input_size != classifier.input_size:
            raise UsageError("a net inside a classifier is shown what that sees: their input sizes are the same")
        self.localizer(stage)

    def localizer(self, stage: LocalizerConfig) -> LocalizerConfig:
        """A stage as its net is built: inside a classifier that sees features, not the image."""
        if not self.insert_at or self.classifier is None:
            return stage
        size = tuple(-(-side // (1 << self.insert_at)) for side in stage.input_size)
        width = self.classifier.widths[self.insert_at - 1]
        return msgspec.structs.replace(stage, input_size=size, channels=width)

    @property
    def dims(self) -> int:
        """2 of images, 3 of volumes."""
        return len(self.stages[0].input_size)

    @property
    def channels(self) -> int:
        """Of what all nets see."""
        return self.stages[0].channels

    @property
    def crop_size(self) -> Size:
        """Of the crop that is read, or else of what the last stage sees."""
        return (self.reader or self.classifier or self.stages[-1]).input_size


def _check_sides(input_size: Size) -> None:
    if len(input_size) not in (2, 3) or min(input_size) < 1:
        raise UsageError(f"nets see HxW of images or DxHxW of volumes, not {input_size}")


def _check_levels(widths: tuple[int, ...], input_size: Size) -> None:
    if not widths or min(widths) < 1:
        raise UsageError(f"widths {widths} make no network; there is at least one, and each is positive")
    if min(input_size) < 2 ** (len(widths) - 1):
        raise UsageError(f"an input of {input_size} is too small for {len(widths)} levels")
