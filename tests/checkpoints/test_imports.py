"""Spatial transformers of other projects: ours show the same crops, whichever way their corners were meant."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.imports import ImportOptions, imported, read_weights
from stn_cli.engines.adopt import adopt
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.verify import verify
from stn_cli.errors import ModelError, OutputExistsError, StorageError, UsageError
from stn_cli.sampling.differentiable import sample
from tests.checkpoints import foreign
from tests.running import stn


def pictures(size, channels, count=4):
    rng = np.random.default_rng(3)
    cells = rng.uniform(0, 1, (count, 7, 9, channels)).astype(np.float32)
    big = [cv2.resize(each, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(*size, channels) for each in cells]
    return torch.from_numpy(np.clip(np.stack(big), 0, 1)).permute(0, 3, 1, 2)


def normalised(x, mean, deviation):
    return (x - mean) / deviation


CASES = {
    "the tutorial": (foreign.tutorial, "pytorch-tutorial", (28, 28), 1, (0.1307, 0.3081), {}),
    "the tutorial before PyTorch 1.3": (
        lambda: foreign.tutorial(True),
        "pytorch-tutorial",
        (28, 28),
        1,
        (0.1307, 0.3081),
        {"align_corners": True},
    ),
    "the tutorial on traffic signs": (
        lambda: foreign.tutorial(channels=3, side=32),
        "pytorch-tutorial",
        (32, 32),
        3,
        (0.4, 0.2),
        {"mean": (0.4,) * 3, "deviation": (0.2,) * 3},
    ),
    "lprnet": (foreign.lprnet, "lprnet", (24, 94), 3, (0.5, 128 / 255), {}),
    "lprnet, its blue, green and red told apart": (
        foreign.lprnet,
        "lprnet",
        (24, 94),
        3,
        (torch.tensor([0.6, 0.5, 0.3]).reshape(3, 1, 1), torch.tensor([0.3, 0.25, 0.2]).reshape(3, 1, 1)),
        {"mean": (0.6, 0.5, 0.3), "deviation": (0.3, 0.25, 0.2)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_affine_transformer_shows_the_same_crop(case):
    make, layout, size, channels, (mean, deviation), options = CASES[case]
    theirs, image = foreign.perturbed(make()), pictures(size, channels)
    seen = normalised(image, mean, deviation)
    ours = imported(theirs.state_dict(), layout, ImportOptions(**options))
    assert ours.config.stages[0].input_size == size
    with torch.no_grad():
        transform = ours.transformer.locate(image.flip(1) if layout == "lprnet" else image).transform
        expected = theirs(seen, image)
        found = sample(image, transform, size, resample="bilinear")
    assert (transform.theta - torch.tensor([1.0, 0, 0, 0, 1, 0])).abs().max() > 0.1, "it moves"
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_a_spline_of_clova_shows_the_same_crop():
    image = pictures((32, 100), 1)
    theirs = foreign.perturbed(foreign.Clova(), normalised(image, 0.5, 0.5))
    ours = imported(theirs.state_dict(), "clova-tps", ImportOptions())
    assert not imported({f"module.Transformation.{n}": w for n, w in theirs.state_dict().items()}, "clova-tps").training
    with torch.no_grad():
        transform = ours.transformer.locate(image).transform
        expected = theirs(normalised(image, 0.5, 0.5), image)
        found = sample(image, transform, (32, 100), resample="bilinear")
    assert (transform.theta - transform.theta[0]).abs().max() > 0.02, "every image bends its own way"
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)


def test_a_spline_of_aster_shows_the_same_crop():
    look, image = pictures((32, 64), 3), pictures((64, 256), 3)
    theirs = foreign.perturbed(foreign.Aster(), normalised(look, 0.5, 0.5), scale=3.0)
    ours = imported({f"module.{name}": value for name, value in theirs.state_dict().items()}, "aster")
    with torch.no_grad():
        transform = ours.transformer.locate(look).transform
        expected = theirs(normalised(look, 0.5, 0.5), image)
        found = sample(image, transform, (32, 100), resample="bilinear")
    assert (transform.theta - transform.theta[0]).abs().max() > 0.02
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("make", "layout"), [(foreign.tutorial, "pytorch-tutorial"), (foreign.Aster, "aster")])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_import_becomes_a_checkpoint_that_rectifies(make, layout, suffix, tmp_path):
    theirs = foreign.perturbed(make(), pictures((32, 64), 3))
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"epoch": 3, "state_dict": theirs.state_dict()}, file)
    else:
        save_file(theirs.state_dict(), file)
    checkpoint = adopt(file, layout, tmp_path / "model")
    assert len(list(verify(open_checkpoint(str(tmp_path / "model"))))) >= 4
    image = (pictures((60, 70), 3, 1)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    (location,) = OnnxEngine(checkpoint).locate([small_copy(image)], [image.shape[:2]])
    assert np.isfinite(location.transform.theta).all()
    with pytest.raises(OutputExistsError):
        adopt(file, layout, tmp_path / "model")


def test_the_command_imports_and_rectifies(tmp_path):
    torch.save(foreign.perturbed(foreign.tutorial()).state_dict(), tmp_path / "net.pth")
    run = stn("models", "import", "net.pth", "--layout", "pytorch-tutorial", "-o", "mine", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "mine\n"
    assert stn("models", "verify", "mine", cwd=tmp_path).returncode == 0
    again = stn("models", "import", "net.pth", "--layout", "pytorch-tutorial", "-o", "mine", cwd=tmp_path)
    assert again.returncode == 6


@pytest.mark.parametrize(("content", "code"), [(None, 8), (b"not a file of torch", 5), ("program", 5)])
def test_weights_that_are_none_are_refused_and_nobody_is_told_to_trust_them(tmp_path, content, code):
    file = tmp_path / "net.pth"
    if content == "program":
        torch.save(foreign.tutorial(), file)  # the whole module: reading it runs what its author wrote
    elif content is not None:
        file.write_bytes(content)
    run = stn("models", "import", "net.pth", "--layout", "pytorch-tutorial", "-o", "mine", cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert "weights_only" not in run.stderr
    assert not (tmp_path / "mine").exists()


def test_the_command_passes_on_what_it_is_told(tmp_path):
    torch.save(foreign.perturbed(foreign.tutorial()).state_dict(), tmp_path / "net.pth")
    told = ["--mean", 0.3, "--deviation", 0.2, "--align-corners", "--name", "theirs", "--input", "28x28"]
    run = stn("models", "import", "net.pth", "--layout", "pytorch-tutorial", "-o", "told", *told, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    options = ImportOptions((28, 28), (0.3,), (0.2,), align_corners=True)
    same = adopt(tmp_path / "net.pth", "pytorch-tutorial", tmp_path / "same", "theirs", options)
    plain = adopt(tmp_path / "net.pth", "pytorch-tutorial", tmp_path / "plain", "theirs")
    made = open_checkpoint(str(tmp_path / "told"))
    assert made.name == "theirs"
    assert made.sha256 == same.sha256 != plain.sha256


class Evil:
    def __reduce__(self):
        return (print, ("a program ran",))


def hostile(path):
    path.write_bytes(pickle.dumps(Evil()))


def torn(path):
    torch.save(foreign.tutorial().state_dict(), path)
    path.write_bytes(path.read_bytes()[:3000])


FILES = {
    "a program": hostile,
    "a torn archive": torn,
    "no weights": lambda path: torch.save({"epoch": 3}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "nothing": lambda path: path.write_bytes(b""),
    "a whole module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "no file": lambda path: None,
}


@pytest.mark.parametrize("name", FILES)
def test_what_holds_no_plain_weights_is_refused_and_never_run(name, tmp_path, capsys):
    FILES[name](tmp_path / "weights.pth")
    with pytest.raises(StorageError if name == "no file" else ModelError, match=r"weights\.pth"):
        read_weights(tmp_path / "weights.pth")
    assert "a program ran" not in capsys.readouterr().out


def test_weights_of_another_layout_are_named():
    with pytest.raises(ModelError, match=r"no tensor 'conv\.0\.weight'"):
        imported(foreign.tutorial().state_dict(), "clova-tps")
    with pytest.raises(ModelError, match="do not fit"):
        imported(foreign.lprnet().state_dict(), "pytorch-tutorial", ImportOptions(input_size=(30, 30)))
    with pytest.raises(UsageError, match="no layout 'mine'"):
        imported(foreign.tutorial().state_dict(), "mine")
    torn = foreign.tutorial().state_dict()
    del torn["localization.3.bias"]
    with pytest.raises(ModelError, match="do not fit"):
        imported(torn, "pytorch-tutorial")


SPOILT = {
    "a scalar": ("pytorch-tutorial", foreign.tutorial, "localization.0.weight", ()),
    "a row": ("pytorch-tutorial", foreign.tutorial, "fc_loc.0.weight", (32,)),
    "nothing": ("pytorch-tutorial", foreign.tutorial, "localization.3.weight", (0, 8, 5, 5)),
    "no matrix": ("lprnet", foreign.lprnet, "fc_loc.2.weight", (6,)),
    "a bias that is a scalar": ("clova-tps", foreign.Clova, "LocalizationNetwork.localization_fc2.bias", ()),
    "half a point": ("clova-tps", foreign.Clova, "LocalizationNetwork.localization_fc2.bias", (41,)),
    "a row too long": ("aster", foreign.Aster, "stn_head.stn_fc2.bias", (42,)),
}


@pytest.mark.parametrize("name", SPOILT)
def test_weights_of_impossible_shapes_are_refused(name):
    layout, make, tensor, shape = SPOILT[name]
    weights = make().state_dict()
    assert tensor in weights
    weights[tensor] = torch.zeros(shape)
    with pytest.raises(ModelError):
        imported(weights, layout)


def test_an_input_size_that_the_weights_do_not_tell_has_to_be_said():
    odd = foreign.Affine(1, (8, 10), (7, 5), (2, 2), 15, 32, False)
    with pytest.raises(ModelError, match="no square image"):
        imported(odd.state_dict(), "pytorch-tutorial")
    assert imported(odd.state_dict(), "pytorch-tutorial", ImportOptions(input_size=(28, 36))).config.crop_size == (
        28,
        36,
    )
