"""What a machine has is seen without torch: from the driver's device files."""

import importlib.metadata

import pytest

from stn_cli.engines import devices


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), False),
        (("nvidia0", "nvidiactl"), True),
        (("nvidia3", "nvidiactl"), True),  # a container that was given the fourth card
        (("nvidiactl", "nvidia-uvm"), False),  # a driver without a card
        (("nvhost-gpu",), True),
        (("dxg",), True),
        (("kfd",), False),
    ],
)
def test_what_the_machine_has(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(devices, "_DEVICE_FILES", tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.13.0+cpu")
    for name in files:
        (tmp_path / name).touch()
    assert devices.may_be_accelerated("auto") is expected
    assert not devices.may_be_accelerated("cpu")


def test_a_card_of_amd_counts_where_torch_can_use_it(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_DEVICE_FILES", tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.13.0+rocm6.4")
    assert not devices.may_be_accelerated("auto")
    (tmp_path / "kfd").touch()
    assert devices.may_be_accelerated("auto")
