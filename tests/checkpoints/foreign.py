"""Small spatial transformers as other projects have them, written anew: their layers, names and grids."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Affine(nn.Module):
    """The tutorial's and LPRNet's: `localization`, `fc_loc`, an affine grid as large as the image."""

    def __init__(self, channels, sizes, kernels, pools, pixels, hidden, align_corners):
        super().__init__()
        layers, narrow = [], channels
        for wide, kernel, pool in zip(sizes, kernels, pools, strict=True):
            layers += [nn.Conv2d(narrow, wide, kernel), nn.MaxPool2d(pool), nn.ReLU(True)]
            narrow = wide
        self.localization = nn.Sequential(*layers)
        self.fc_loc = nn.Sequential(nn.Linear(narrow * pixels, hidden), nn.ReLU(True), nn.Linear(hidden, 6))
        self.align_corners = align_corners

    def theta(self, x):
        return self.fc_loc(self.localization(x).flatten(1)).view(-1, 2, 3)

    def forward(self, x, image):
        grid = F.affine_grid(self.theta(x), list(image.shape), align_corners=self.align_corners)
        return F.grid_sample(image, grid, padding_mode="border", align_corners=self.align_corners)


def tutorial(align_corners=False, channels=1, side=28):
    pixels = (((side - 6) // 2 - 4) // 2) ** 2
    return Affine(channels, (8, 10), (7, 5), (2, 2), pixels, 32, align_corners)


def lprnet():
    return Affine(3, (32, 32), (3, 5), (2, 3), 2 * 14, 32, True)


class Clova(nn.Module):
    """`Transformation` of deep-text-recognition-benchmark, RARE's spline with 20 points."""

    def __init__(self, points=20, size=(32, 100)):
        super().__init__()
        self.LocalizationNetwork = nn.Module()
        layers, narrow = [], 1
        for level, wide in enumerate((64, 128, 256, 512)):
            pool = nn.MaxPool2d(2, 2) if level < 3 else nn.AdaptiveAvgPool2d(1)
            layers += [nn.Conv2d(narrow, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(True), pool]
            narrow = wide
        net = self.LocalizationNetwork
        net.conv = nn.Sequential(*layers)
        net.localization_fc1 = nn.Sequential(nn.Linear(512, 256), nn.ReLU(True))
        net.localization_fc2 = nn.Linear(256, 2 * points)
        x = np.linspace(-1.0, 1.0, points // 2)
        self.canonical = np.concatenate([np.stack([x, np.full_like(x, y)], 1) for y in (-1.0, 1.0)])
        net.localization_fc2.weight.data.fill_(0)
        net.localization_fc2.bias.data = torch.from_numpy(self.canonical).float().view(-1)
        columns, rows = ((np.arange(-side, side, 2) + 1.0) / side for side in size[::-1])
        self.grid = np.stack(np.meshgrid(columns, rows), axis=2).reshape(-1, 2)
        self.size = size

    def control_points(self, x):
        net = self.LocalizationNetwork
        features = net.conv(x).flatten(1)
        return net.localization_fc2(net.localization_fc1(features)).view(len(x), -1, 2)

    def forward(self, x, image):
        grid = spline(self.canonical, self.control_points(x).double(), self.grid).float()
        return F.grid_sample(image, grid.view(len(x), *self.size, 2), padding_mode="border", align_corners=True)


class Aster(nn.Module):
    """`stn_head` and `tps` of aster.pytorch; the spline's points lie a twentieth within the crop."""

    def __init__(self, points=20, size=(32, 100), widths=(32, 64, 128, 256, 256, 256)):
        super().__init__()
        head = self.stn_head = nn.Module()
        layers, narrow = [], 3
        for level, wide in enumerate(widths):
            layers.append(nn.Sequential(nn.Conv2d(narrow, wide, 3, 1, 1), nn.BatchNorm2d(wide), nn.ReLU(True)))
            layers += [nn.MaxPool2d(2, 2)] if level < 5 else []
            narrow = wide
        head.stn_convnet = nn.Sequential(*layers)
        head.stn_fc1 = nn.Sequential(nn.Linear(2 * narrow, 512), nn.BatchNorm1d(512), nn.ReLU(True))
        head.stn_fc2 = nn.Linear(512, 2 * points)
        x = np.linspace(0.05, 0.95, points // 2)
        self.canonical = np.concatenate([np.stack([x, np.full_like(x, y)], 1) for y in (0.05, 0.95)])
        start = np.concatenate(
            [np.stack([np.linspace(0.01, 0.99, points // 2), np.full_like(x, y)], 1) for y in (0.01, 0.99)]
        )
        head.stn_fc2.bias.data = torch.from_numpy(start).float().view(-1)
        rows_columns = np.array(list(itertools.product(range(size[0]), range(size[1]))), float)
        self.grid = rows_columns[:, ::-1] / (np.array(size[::-1]) - 1)
        self.size = size

    def control_points(self, x):
        head = self.stn_head
        features = head.stn_convnet(x).flatten(1)
        return head.stn_fc2(0.1 * head.stn_fc1(features)).view(len(x), -1, 2)

    def forward(self, x, image):
        source = spline(self.canonical, self.control_points(x).double(), self.grid).clamp(0, 1).float()
        grid = 2.0 * source.view(len(x), *self.size, 2) - 1.0
        return F.grid_sample(image, grid, align_corners=True)


def spline(canonical, moved, points):
    """Bookstein's spline by solving its system anew, for targets (b, k, 2): (b, n, 2)."""

    def kernel(a, b):
        square = ((a[:, None] - b[None]) ** 2).sum(-1)
        return np.where(square > 0, square * np.log(np.where(square > 0, square, 1)), 0) / 2

    count = len(canonical)
    affine = np.column_stack((np.ones(count), canonical))
    system = np.block([[kernel(canonical, canonical), affine], [affine.T, np.zeros((3, 3))]])
    basis = np.column_stack((kernel(points, canonical), np.ones(len(points)), points)) @ np.linalg.inv(system)
    return torch.from_numpy(basis[:, :count]) @ moved


def perturbed(net, seen=None, scale=0.3):
    """The net with a last layer that moves and bends, and norms that fit what it sees, so that images differ in it."""
    generator = torch.Generator().manual_seed(7)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            net.train().control_points(seen)
        last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.normal_(0, scale / math.sqrt(last.in_features), generator=generator)
        if isinstance(net, Affine):
            last.bias.copy_(torch.tensor([0.9, 0.15, 0.1, -0.1, 1.05, -0.08]))
    return net.eval()
