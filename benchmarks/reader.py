"""The judge of the digit benchmark: a small convolutional net that has seen clean, upright MNIST only.

No augmentation of any kind (dropout aside), so whatever it reads off a distorted digit is due to the crop it is
given and not to a tolerance it was taught.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from pathlib import Path

EPOCHS = 8
BATCH = 128
PEAK_LEARNING_RATE = 4e-3
EMA_DECAY = 0.998  # averages over about the last epoch: 469 steps
SEED = 0
RING = 3  # pixels of a 28×28 crop that count as its border


def _block(channels_in: int, channels_out: int, kernel: int, padding: int, pool: bool) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=padding, bias=False)
    return [conv, nn.MaxPool2d(2) if pool else nn.Identity(), nn.BatchNorm2d(channels_out), nn.ReLU()]


def network() -> nn.Sequential:
    """Return the untrained reader: (n, 1, 28, 28) in 0..1 to (n, 10) logits."""
    return nn.Sequential(
        *_block(1, 32, kernel=5, padding=0, pool=True),  # 24×24 to 12×12
        *_block(32, 64, kernel=3, padding=1, pool=False),
        *_block(64, 64, kernel=3, padding=0, pool=True),  # 10×10 to 5×5
        *_block(64, 128, kernel=3, padding=1, pool=False),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(128 * 5 * 5, 10),
    )


def train(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Train on (n, 28, 28) uint8 digits as they are; return the averaged net."""
    torch.manual_seed(SEED)
    x, y = torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()
    net = network().train()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        start, total = time.perf_counter(), 0.0
        for batch in torch.randperm(len(x))[: steps // EPOCHS * BATCH].split(BATCH):
            loss = nn.functional.cross_entropy(net(x[batch].float() / 255), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            averaged.update_parameters(net)
            total += loss.item()
        mean, seconds = total * EPOCHS / steps, time.perf_counter() - start
        print(f"reader: epoch {epoch + 1}/{EPOCHS}, loss {mean:.4f}, {seconds:.0f} s", file=sys.stderr)
    averaged.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return averaged.module.eval()


def _border() -> np.ndarray:
    inner = np.zeros((28, 28), bool)
    inner[RING:-RING, RING:-RING] = True
    return ~inner


def _ink(crop: np.ndarray) -> np.ndarray:
    """Turn a colour crop into white ink on black, in 0..1, by one fixed rule.

    The background is the plane through the colours of the crop's border, fitted per channel; ink is what differs
    from it in the direction in which the 5 % most different pixels do. Zero is the 90th percentile of the border,
    one the 97th of the crop.
    """
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    border = _border()
    basis = np.stack([np.ones_like(x), x, y], axis=-1)
    pixels = crop.astype(float)
    difference = pixels - basis @ np.linalg.lstsq(basis[border], pixels[border], rcond=None)[0]
    distance = np.linalg.norm(difference, axis=-1)
    direction = difference[distance >= np.percentile(distance, 95)].mean(axis=0)
    strength = difference @ direction
    zero, one = np.percentile(strength[border], 90), np.percentile(strength, 97)
    return np.clip((strength - zero) / max(one - zero, 1e-6), 0, 1)


def ink(crops: np.ndarray) -> np.ndarray:
    """Return crops (n, 28, 28[, 3]) uint8 as the reader takes them: (n, 28, 28) in 0..1, grey ones as they are."""
    if crops.ndim == 3:
        return crops / np.float32(255)
    return np.array([_ink(crop) for crop in crops], np.float32)


@torch.inference_mode()
def read(net: nn.Module, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read (n, 28, 28) float crops in 0..1, white on black; return the digits and their probabilities."""
    batches = torch.from_numpy(np.asarray(crops, np.float32)).unsqueeze(1).split(500)
    probability, digit = torch.cat([net(batch).softmax(1) for batch in batches]).max(1)
    return digit.numpy(), probability.numpy()


def load_or_train(weights: Path, images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Return the reader from its weight file, trained and written there first when there is none."""
    if weights.exists():
        stored = network()
        stored.load_state_dict(load_file(weights))
        return stored.eval()
    trained = train(images, labels)
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(trained.state_dict(), weights)
    return trained
