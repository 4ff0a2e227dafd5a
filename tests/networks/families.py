"""The families of the geometry tests, as configurations name them."""

from stn_cli.networks.config import TransformConfig
from tests.geometry.examples import spec


def family(kind):
    return TransformConfig(spec(kind).kind, spec(kind).layout)
