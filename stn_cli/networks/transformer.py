"""The spatial transformer as a layer: localize, then sample. It fits anywhere in a network."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.errors import UsageError
from stn_cli.geometry import (
    Cascade,
    ThinPlateSpline,
    Transform,
    TransformSpec,
    letterbox,
)
from stn_cli.geometry.arrays import at_least_float32
from stn_cli.networks.config import Limits, LocalizerConfig, Size, TransformConfig
from stn_cli.networks.direction import DirectionNet
from stn_cli.networks.localization import LocalizationNet, Pose
from stn_cli.networks.refinement import all_looks, doubtful, enlarged, refined, righted, upright_odds, zoom
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.kinds import Fill, Resample


class Stage(nn.Module):
    """A localization net, the transform that its θ stands for, and what it is shown.

    Args:
        localizer: any module from (b, c, *input) to θ (b, dof), or to a `Pose`.
        spec: the family of transforms.
        input_size: the localizer sees the region found so far at this size; None: the input itself, as it is.
        margin: that region enlarged by this factor.
        repeat: how often it refines what it found itself, all told.
        looks: degrees by which that region is turned, once each: in evaluation the localizer sees all these views,
            joined along their channels, and in training the region itself alone.
    """

    def __init__(
        self,
        localizer: nn.Module,
        spec: TransformSpec,
        input_size: Sequence[int] | None = None,
        margin: float = 1.0,
        repeat: int = 1,
        looks: Sequence[float] = (0.0,),
    ) -> None:
        super().__init__()
        self.localizer = localizer
        self.spec = spec
        self.input_size = None if input_size is None else tuple(input_size)
        self.margin = margin
        self.repeat = repeat
        self.looks = tuple(looks)


Start = Callable[[Stage, Transform], Transform]
"""What a stage starts from instead of what the stages before it found: training shows it errors of all kinds."""


class Asked(NamedTuple):
    """What a direction net was shown, without its margin, and its log-odds of that being upright."""

    shown: Transform
    odds: Float[Tensor, " b"]


class Located(NamedTuple):
    """Where the stages look: the composed transform after each, and what each localizer said.

    A stage that repeats has an entry for every time; `starts` has what each was shown, without its margin. `upright`
    are log-odds of the last being upright, where splines vote on that; `asked` is what a direction net says.
    """

    starts: tuple[Transform, ...]
    transforms: tuple[Transform, ...]
    poses: tuple[Pose, ...]
    upright: Tensor | None = None
    asked: Asked | None = None

    @property
    def transform(self) -> Transform:
        return self.transforms[-1]

    @property
    def confidence(self) -> Float[Tensor, " b"]:
        """Probability that the last transform is right, and the right way up."""
        right = torch.sigmoid(self.poses[-1].confidence)
        return right if self.upright is None else right * torch.sigmoid(self.upright)


class SpatialTransformer(nn.Module):
    """Stages in series, their parameters composed, the input sampled once (IC-STN, Lin & Lucey 2017).

    `forward` maps (b, c, *size) to (b, c, *output_size), for images and volumes of any channels, so that the module
    can stand anywhere in a network; `locate` tells the transforms.

    Args:
        stages: one, or several in series.
        output_size: of the crop.
        fit: `letterbox` lets the first stage see the image with its aspect kept; `stretch` squeezes it.
        resample, fill: as in `sample`, for the crop and for what the stages see.
        upright_odds: log-odds that what is shown stands upright in `x`, before splines vote on that.
        direction: is asked which way is up where their votes leave doubt.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        output_size: Sequence[int],
        *,
        fit: str = "stretch",
        resample: Resample = "auto",
        fill: Fill = "border",
        upright_odds: float = 0.0,
        direction: DirectionNet | None = None,
    ) -> None:
        super().__init__()
        if not stages or fit not in ("letterbox", "stretch"):
            raise UsageError("a spatial transformer has at least one stage, and fit is 'letterbox' or 'stretch'")
        self.stages = nn.ModuleList(stages)
        self.output_size = tuple(output_size)
        self.fit = fit
        self.resample: Resample = resample
        self.fill: Fill = fill
        self.upright_odds = upright_odds
        self.direction = direction

    @classmethod
    def of(
        cls,
        transform: str,
        *,
        input_size: Size,
        output_size: Size,
        channels: int = 3,
        layout: str | None = None,
        limits: Limits | None = None,
        stages: int = 1,
    ) -> Self:
        """A transformer with localization nets of our own; of volumes, where the transform is affine3d.

        Args:
            transform: family, as `TransformConfig` names it.
            input_size: (height, width), or (depth, height, width), at which the nets see the input.
            output_size: of the crop.
            channels: of the input.
            layout: of the control points of `tps`.
            limits: of the parameters; None: the usual ones.
            stages: localization nets in series.

        Raises:
            UsageError: there is no such family, or a size is too small.
        """
        config = LocalizerConfig(
            transform=TransformConfig(transform, layout),  # type: ignore[arg-type]
            input_size=input_size,
            channels=channels,
            widths=(16, 32, 48, 64) if min(input_size) >= 16 else (16, 32),
            hidden=64,
            limits=limits or Limits(),
        )
        nets = [LocalizationNet(config) for _ in range(stages)]
        return cls([Stage(net, config.transform.spec, input_size) for net in nets], output_size)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *crop"]:
        return self.sample(x, self.locate(x).transform)

    def sample(
        self, x: Float[Tensor, "b c *size"], transform: Transform, size: Sequence[int] | None = None
    ) -> Float[Tensor, "b c *crop"]:
        """The crop that `transform` shows of `x`, of `output_size` or another; of floats, in the type of `x`."""
        crop = sample(x, transform, tuple(size or self.output_size), resample=self.resample, fill=self.fill)
        return crop.to(x.dtype) if x.is_floating_point() else crop

    def whole(self, x: Float[Tensor, "b c *size"]) -> Transform:
        """What the first stage starts from: all of `x`, (b, dof)."""
        frame = self._first_frame(x, cast("Stage", self.stages[0]))
        return dataclasses.replace(frame, theta=frame.theta.expand(len(x), -1))  # type: ignore[type-var]

    def locate(
        self, x: Float[Tensor, "b c *size"], *, detach: bool = False, start: Start | None = None, skip: int = 0
    ) -> Located:
        """The composed transform after each stage.

        With `detach`, a later stage does not teach an earlier one where to look (each then has its own loss). With
        `start`, every stage but the first is applied once, and begins where that says, as does the direction net; the
        first `skip` stages are then left out, as if they had found the whole of `x`.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        found: Transform | None = None
        odds: Tensor | None = None
        steps: list[tuple[Transform, Transform, Pose]] = []
        for number, stage in enumerate(cast("Iterable[Stage]", self.stages)):
            if number < skip:
                continue
            for _ in range(1 if start is not None else stage.repeat):
                begin = self._begin(x, stage, found, detach=detach)
                if start is not None and number > 0:
                    begin = start(stage, begin)
                pose = _as_pose(stage.localizer(self._seen(x, stage, begin, whole=number == 0 and found is None)))
                found = refined(begin, stage.spec(pose.theta.to(dtype)), stage.margin)
                if isinstance(found, ThinPlateSpline) and pose.angle_votes.shape[1]:
                    upright, over = pose.angle_votes.detach().unbind(1)
                    before = 0.0 if start is not None or odds is None else odds
                    found, odds = righted(found, before + upright - over, self.upright_odds)
                steps.append((begin, found, pose))
        starts, transforms, poses = zip(*steps, strict=True) if steps else ((), (), ())
        last = cast("Stage", self.stages[-1])
        found = self._begin(x, last, found, detach=False)
        asked = None
        if self.direction is not None:
            asked = self._asked(x, self._begin(x, last, found, detach=detach) if start is None else start(last, found))
        if odds is not None and isinstance(found, ThinPlateSpline):
            if self.direction is not None and asked is not None and start is None:
                unsure = doubtful(found, odds, self.upright_odds, self.direction.config.doubt)
                found, odds = righted(found, odds + unsure * asked.odds.detach(), self.upright_odds)
            odds = odds + upright_odds(found, self.upright_odds)
        return Located(starts, (*transforms[:-1], found), poses, odds, asked)

    def _asked(self, x: Tensor, shown: Transform) -> Asked:
        net = cast("DirectionNet", self.direction)
        frame = enlarged(shown, net.config.margin)
        line = sample(x, frame, net.config.input_size, resample=self.resample, fill=self.fill)
        return Asked(shown, at_least_float32(net(line.to(next(net.parameters()).dtype))))

    def _begin(self, x: Tensor, stage: Stage, found: Transform | None, *, detach: bool) -> Transform:
        if found is None:
            return self._first_frame(x, stage)
        return _detached(found) if detach else found

    def _seen(self, x: Tensor, stage: Stage, begin: Transform, *, whole: bool) -> Tensor:
        view, size = x, stage.input_size or tuple(x.shape[2:])
        looks = (0.0,) if self.training else stage.looks
        if not whole or stage.margin != 1.0 or size != tuple(x.shape[2:]) or len(looks) > 1:
            shown = all_looks(begin, stage.margin, looks)
            view = torch.cat([sample(x, each, size, resample=self.resample, fill=self.fill) for each in shown], dim=1)
        return view.to(next(stage.localizer.parameters(), view).dtype)

    def _first_frame(self, x: Tensor, stage: Stage) -> Transform:
        dtype = torch.promote_types(x.dtype, torch.float32)
        if self.fit == "letterbox" and stage.input_size is not None:
            frame = letterbox(tuple(x.shape[2:]), stage.input_size)
            return type(frame)(torch.tensor(frame.theta, dtype=dtype, device=x.device))
        return zoom(1.0, x.ndim - 2, torch.zeros(0, dtype=dtype, device=x.device))


class ParallelSpatialTransformers(nn.Module):
    """Several spatial transformers on one input, their crops joined along the channels (Jaderberg et al. 2015, 4.3)."""

    def __init__(self, heads: Sequence[SpatialTransformer]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c2 *crop"]:
        return torch.cat([head(x) for head in self.heads], dim=1)


def _as_pose(output: Pose | Tensor) -> Pose:
    if isinstance(output, Pose):
        return output
    return Pose(output, output.new_zeros(len(output)), output.new_zeros(len(output), 0))


def _detached(transform: Transform) -> Transform:
    if isinstance(transform, Cascade):
        return Cascade(tuple(_detached(stage) for stage in transform.stages))
    return dataclasses.replace(transform, theta=transform.theta.detach())  # type: ignore[type-var]
