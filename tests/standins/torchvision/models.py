"""One network of torchvision's name and interface, and the function that finds it."""

from torch import nn


def resnet18(*, weights=None, num_classes=1000):
    assert weights is None
    layers = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, num_classes))


def get_model(name, **config):
    if name != "resnet18":
        raise ValueError(f"Unknown model {name}")
    return resnet18(**config)
