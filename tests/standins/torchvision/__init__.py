"""Stands in for torchvision where it is not installed: what stn and the README ask of it."""

from torchvision import models as models
