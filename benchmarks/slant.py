"""How far can the rotation of a handwritten digit be told at all, when nobody knows by how much its writer leaned?

    python -m benchmarks.slant MNIST --work DIR [--minutes 40]

The second net of `digits` is trained on for nothing but that. It is told where the digit is, and that it is turned by
no more than 45°, as in the set RTS (see `digit_sets`: ±45°, scale 0.7–1.2). It is not told the true size, from which
the angle follows, since MNIST's digits are as high, or as wide, as their frame while they stand upright. And unlike in
RTS digits are drawn by averages of pixels four times finer: interpolation blurs them differently at every angle.

Two answers are taken: the median, which errs least on average, and the middle of the 30° that most probably hold the
angle, after which fewest answers are off by more than 15°. The net learns from MNIST's training digits, drawn anew in
each epoch; before and after each it is measured on the test digits, and after each on training digits drawn once more,
which shows whether more would help. The last epoch is cut short when the minutes are over. DIR keeps the net.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.digit_sets import RTS_CANVAS, SIDE, placement, read_mnist, render, warp
from benchmarks.measures import spread
from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.weights import load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stn_cli.networks.localization import LocalizationNet
    from stn_cli.networks.transformer import Stage

RANGE, WINDOW = 45, 15  # degrees to either side
LARGEST = 1.2  # scale, in RTS
FINE = 4
BATCH = 128
PEAK_LEARNING_RATE = 1.5e-3
EMA_DECAY = 0.999

Views = tuple[np.ndarray, np.ndarray]


class Turned(torch.utils.data.Dataset[Views]):
    """Batches of digits at their true place (n, 1, side, side) uint8, and the angles of their rotation in degrees."""

    def __init__(self, digits: np.ndarray, stage: Stage, seed: int) -> None:
        self.digits, self.seed = digits, seed
        self.side, self.margin = cast("tuple[int, ...]", stage.input_size)[0], stage.margin
        self.order = np.random.default_rng(seed).permutation(len(digits))

    def __len__(self) -> int:
        return len(self.digits) // BATCH

    def __getitem__(self, number: int) -> Views:
        views, angles = np.empty((BATCH, 1, self.side, self.side), np.uint8), np.empty(BATCH, np.float32)
        for place, index in enumerate(self.order[number * BATCH : (number + 1) * BATCH]):
            views[place, 0], angles[place] = self._turned(int(index))
        return views, angles

    def _turned(self, index: int) -> tuple[np.ndarray, float]:
        _, matrix = render("RTS", self.digits, index, self.seed)
        fine = cv2.resize(self.digits[index], (FINE * SIDE, FINE * SIDE), interpolation=cv2.INTER_CUBIC)
        image = warp(fine, np.diag([FINE, FINE, 1.0]) @ np.linalg.inv(matrix), RTS_CANVAS)
        x, y, _ = matrix @ (SIDE / 2, SIDE / 2, 1)
        frame = placement(0, self.margin * LARGEST, (x, y)) @ np.diag([SIDE / self.side, SIDE / self.side, 1])
        return warp(image, frame, self.side), np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))


class Votes:
    """How likely a net finds each of its angles within the range, in degrees."""

    def __init__(self, net: LocalizationNet) -> None:
        angles = (torch.arange(net.config.angle_bins) * (360 / net.config.angle_bins) + 180) % 360 - 180
        order = angles.argsort()
        self.bins = order[angles[order].abs() <= RANGE]
        self.angles = angles[self.bins]
        self.step = 360 / net.config.angle_bins
        self.channels = net.config.channels

    def log_odds(self, net: torch.nn.Module, views: Tensor) -> Tensor:
        """Of the angles, (n, angles), for views (n, 1, side, side) uint8."""
        grey = (views.float() / 255).expand(-1, self.channels, -1, -1)
        shown = grey.contiguous(memory_format=torch.channels_last)
        return cast("Tensor", net(shown).angle_votes[:, self.bins].float())

    def loss(self, log_odds: Tensor, true: Tensor) -> Tensor:
        """Cross-entropy; the true angles are shared by the two beside them."""
        shares = (1 - (true[:, None] - self.angles).abs() / self.step).clamp(min=0)
        return F.cross_entropy(log_odds, shares)

    def answers(self, log_odds: Tensor) -> dict[str, np.ndarray]:
        """The median of what is likely, and the middle of the likeliest 30°."""
        upto = F.pad(log_odds.double().softmax(1).cumsum(1), (1, 0)).numpy()
        ends = np.append(self.angles - self.step / 2, self.angles[-1] + self.step / 2)
        degrees = np.arange(-RANGE - 2 * WINDOW, RANGE + 2 * WINDOW + 1)
        share = np.array([np.interp(degrees, ends, row) for row in upto])
        likeliest = (share[:, 2 * WINDOW :] - share[:, : -2 * WINDOW]).argmax(axis=1) - RANGE - WINDOW
        median = np.array([np.interp(0.5, row, ends) for row in upto])
        return {"median": median, "likeliest": likeliest.astype(float)}


@torch.inference_mode()
def errors(net: torch.nn.Module, votes: Votes, digits: Sequence[Views]) -> dict[str, Any]:
    """How far the answers on these digits are off."""
    log_odds = torch.cat([votes.log_odds(net, torch.from_numpy(views)) for views, _ in digits])
    true = np.concatenate([angles for _, angles in digits])
    off = {name: np.abs(angles - true) for name, angles in votes.answers(log_odds).items()}
    return {name: spread(each) | {"beyond_15": float(np.mean(each > WINDOW))} for name, each in off.items()}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slant")
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    cv2.setNumThreads(1)  # a worker forked from a process with OpenCV's threads would wait for them for ever
    train, test = (read_mnist(args.mnist, part)[0] for part in ("train", "t10k"))
    stage = cast("Stage", load_model(open_checkpoint("digits")).transformer.stages[1])
    net = cast("LocalizationNet", stage.localizer)
    votes = Votes(net)
    seen, held_out = (
        [Turned(digits, stage, 0)[number] for number in range(len(test) // BATCH)] for digits in (train, test)
    )
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.02)
    epochs: list[dict[str, Any]] = []
    started, share = time.monotonic(), 0.0
    while True:
        averaged.module.eval()
        epochs.append({"test": errors(averaged.module, votes, held_out), "train": errors(averaged.module, votes, seen)})
        print(json.dumps(epochs[-1]), file=sys.stderr, flush=True)
        torch.save(averaged.module.state_dict(), args.work / "slant.pt")
        if share >= 1:
            break
        turned = Turned(train, stage, len(epochs))
        loader = torch.utils.data.DataLoader(turned, batch_size=None, num_workers=1, prefetch_factor=8)
        net.train()
        for views, angles in loader:
            share = (time.monotonic() - started) / (60 * args.minutes)
            for group in optimizer.param_groups:
                group["lr"] = PEAK_LEARNING_RATE * max(0.0, 0.5 * (1 + np.cos(np.pi * min(1, share))))
            with torch.autocast("cpu", torch.bfloat16):
                log_odds = votes.log_odds(net, views)
            loss = votes.loss(log_odds, angles)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            averaged.update_parameters(net)
            if share >= 1:
                break
    write_report(RESULTS / "slant.json", provenance("slant", argv) | {"epochs": epochs})


if __name__ == "__main__":
    main(sys.argv[1:])
