"""Some thousand cases of each kind of `benchmarks.fuzz`: nothing but documented errors escapes."""

import random

import pytest

from benchmarks.fuzz import damaged, run_group

CASES = {
    "decoding": 3000,
    "checkpoints": 300,
    "records": 2000,
    "options": 2000,
    "configurations": 2000,
    "datasets": 600,
}


@pytest.mark.parametrize("kind", CASES)
def test_nothing_but_documented_errors_escapes(kind):
    assert run_group(kind, 0, CASES[kind]) == []


def test_damage_depends_on_its_number_alone():
    data = bytes(range(256)) * 4
    assert damaged(data, random.Random(1)) == damaged(data, random.Random(1)) != data
    assert damaged(data, random.Random(1)) != damaged(data, random.Random(2))


def test_a_defect_is_found(monkeypatch):
    from benchmarks import fuzz

    def defective(inputs, chance):
        raise KeyError("x")

    monkeypatch.setitem(fuzz.KINDS, "options", defective)
    assert fuzz.escape("options", 0, None) == "KeyError: 'x'"
