"""A checkpoint from a stranger: whatever is wrong with it is a ModelError before anything of it runs."""

import shutil

import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.errors import ModelError
from stn_cli.rectify.engine import OnnxEngine
from tests.checkpoints.strangers import DAMAGES, rewrite


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(open_checkpoint("digits").path, tmp_path / "model")


def test_a_strangers_checkpoint_that_is_sound_is_opened(folder):
    rewrite(folder)
    assert OnnxEngine(open_checkpoint(str(folder))).sessions


@pytest.mark.parametrize("name", DAMAGES)
def test_a_checkpoint_with_something_wrong_is_refused(folder, name):
    DAMAGES[name](folder)
    with pytest.raises(ModelError) as raised:
        OnnxEngine(open_checkpoint(str(folder)))
    assert raised.value.exit_code == 5
    assert str(raised.value)
    assert not (folder / "ran").exists()


def test_there_are_many():
    assert len(DAMAGES) >= 30
