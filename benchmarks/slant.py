"""How far can the rotation of a handwritten digit be told at all, when nobody knows by how much its writer leaned?

    python -m benchmarks.slant MNIST --work DIR [--minutes 40] [--given size traces]

A net that does nothing else, and is told where the digit is, says how likely every degree is. It sees digits turned as
in the set RTS (see `digit_sets`: ±45°, scale 0.7–1.2), cropped at their true place. Two more things tell of the angle,
and it can be given them, or not:

- *size*: crops have the digit's true size. MNIST's digits are as high, or as wide, as their frame while they stand
  upright. Otherwise all crops show as many pixels.
- *traces*: digits are drawn as in RTS, by bicubic interpolation of 28×28 pixels, which blurs them differently at every
  angle. Otherwise they are drawn by averages of pixels four times finer.

Two answers are taken: the median, which errs least on average, and the middle of the 30° that most probably hold the
angle, after which fewest answers are off by more than 15°. The net learns from MNIST's training digits, drawn anew in
each epoch; after each it is measured on the test digits, which shows whether more would help. The last epoch is cut
short when the minutes are over. DIR keeps the net.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.digit_sets import RTS_CANVAS, SIDE, placement, read_mnist, render, warp
from benchmarks.measures import spread
from benchmarks.provenance import RESULTS, provenance, write_report

if TYPE_CHECKING:
    from collections.abc import Sequence

VIEW = 40  # side of what the net sees
WIDTHS = (1, 32, 64, 64, 96, 96, 128)
RANGE, WINDOW = 45, 15  # degrees to either side
LARGEST = 1.2  # scale, in RTS
FINE = 4
BATCH = 128
PEAK_LEARNING_RATE = 3e-3
EMA_DECAY = 0.999


class Turned(torch.utils.data.Dataset[tuple[np.ndarray, np.ndarray]]):
    """Batches of digits at their true place, and the angles by which they are turned, in degrees."""

    def __init__(self, digits: np.ndarray, seed: int, given: Sequence[str]) -> None:
        self.digits, self.seed, self.given = digits, seed, given
        self.order = np.random.default_rng(seed).permutation(len(digits))

    def __len__(self) -> int:
        return len(self.digits) // BATCH

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        views, angles = np.empty((BATCH, 1, VIEW, VIEW), np.uint8), np.empty(BATCH, np.float32)
        for place, index in enumerate(self.order[number * BATCH : (number + 1) * BATCH]):
            image, matrix = render("RTS", self.digits, int(index), self.seed)
            if "traces" not in self.given:
                fine = cv2.resize(self.digits[index], (FINE * SIDE, FINE * SIDE), interpolation=cv2.INTER_CUBIC)
                image = warp(fine, np.diag([FINE, FINE, 1.0]) @ np.linalg.inv(matrix), RTS_CANVAS)
            scale, angle = np.hypot(*matrix[:2, 0]), np.arctan2(matrix[1, 0], matrix[0, 0])
            centre = matrix @ (SIDE / 2, SIDE / 2, 1)
            side = scale if "size" in self.given else LARGEST
            frame = placement(0, side, tuple(centre[:2])) @ np.diag([SIDE / VIEW, SIDE / VIEW, 1])
            views[place, 0], angles[place] = warp(image, frame, VIEW), np.degrees(angle)
        return views, angles


def network() -> nn.Sequential:
    """From views (n, 1, 40, 40) in 0…1 to logits of the degrees from −45 to 45, (n, 90)."""
    layers: list[nn.Module] = []
    for level, (narrow, wide) in enumerate(itertools.pairwise(WIDTHS)):
        conv = nn.Conv2d(narrow, wide, 3, stride=2 - level % 2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
    features = WIDTHS[-1] * (VIEW // 8) ** 2
    layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 2 * RANGE)]
    return nn.Sequential(*layers)


def answers(logits: Tensor) -> dict[str, np.ndarray]:
    """The median of what is likely, and the middle of the likeliest 30°, in degrees."""
    upto = F.pad(logits.double().softmax(1).cumsum(1), (1, 0)).numpy()
    median = np.array([np.interp(0.5, row, np.arange(-RANGE, RANGE + 1)) for row in upto])
    beyond = np.pad(upto, ((0, 0), (WINDOW, WINDOW)), mode="edge")
    likeliest = (beyond[:, 2 * WINDOW :] - beyond[:, : -2 * WINDOW]).argmax(axis=1) - RANGE
    return {"median": median, "likeliest": likeliest.astype(float)}


@torch.inference_mode()
def errors(net: nn.Module, test: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """How far the answers on the test digits are off."""
    parts = [(net(torch.from_numpy(views).float() / 255), angles) for views, angles in test]
    true = np.concatenate([angles for _, angles in parts])
    found = answers(torch.cat([logits for logits, _ in parts]))
    off = {name: np.abs(angles - true) for name, angles in found.items()}
    return {name: spread(each) | {"beyond_15": float(np.mean(each > WINDOW))} for name, each in off.items()}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slant")
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--given", nargs="*", choices=("size", "traces"), default=[])
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    cv2.setNumThreads(1)  # a worker forked from a process with OpenCV's threads would wait for them for ever
    train, test = (read_mnist(args.mnist, part)[0] for part in ("train", "t10k"))
    name = "-".join(("slant", *sorted(args.given)))
    held_out = list(map(Turned(test, 0, args.given).__getitem__, range(len(test) // BATCH)))
    net = network()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.02)
    epochs: list[dict[str, Any]] = []
    started, share = time.monotonic(), 0.0
    while share < 1:
        turned = Turned(train, 1 + len(epochs), args.given)
        loader = torch.utils.data.DataLoader(turned, batch_size=None, num_workers=1, prefetch_factor=8)
        net.train()
        for views, angles in loader:
            share = (time.monotonic() - started) / (60 * args.minutes)
            for group in optimizer.param_groups:
                group["lr"] = PEAK_LEARNING_RATE * max(0.0, 0.5 * (1 + np.cos(np.pi * min(1, share))))
            with torch.autocast("cpu", torch.bfloat16):
                logits = net((views.float() / 255).contiguous(memory_format=torch.channels_last))
            nearest = (angles + RANGE).long().clamp(0, 2 * RANGE - 1)
            loss = F.cross_entropy(logits.float(), nearest)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            averaged.update_parameters(net)
            if share >= 1:
                break
        epochs.append({"loss": loss.item()} | errors(averaged.module.eval(), held_out))
        print(json.dumps(epochs[-1]), file=sys.stderr, flush=True)
        torch.save(averaged.module.state_dict(), args.work / f"{name}.pt")
    write_report(RESULTS / f"{name}.json", provenance("slant", argv) | {"epochs": epochs})


if __name__ == "__main__":
    main(sys.argv[1:])
