"""`stn evaluate`: figures that can be counted by hand, a sheet of the worst, and clear errors."""

import json
import math
import shutil

import numpy as np
import PIL.Image
import pytest

from stn_cli.engines.engine import Located, Location
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.geometry import Affine
from stn_cli.reports.evaluation import Case, _calibration, _theta, edit_distance, evaluate, worst
from stn_cli.training.examples import Examples, Split
from tests.running import SAMPLES, TRUTH, stn
from tests.training.drawn import dataset, trained


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The sample digits in class folders, one of them in the wrong one."""
    folder = tmp_path_factory.mktemp("digits")
    truth = json.loads((SAMPLES / "truth.json").read_text())
    for number, (name, known) in enumerate(sorted(truth.items())):
        label = known["digit"] if number else (known["digit"] + 1) % 10
        (folder / str(label)).mkdir(exist_ok=True)
        (folder / str(label) / name).write_bytes((SAMPLES / name).read_bytes())
    return folder


def test_figures_are_what_counting_gives(digits, tmp_path):
    run = stn("evaluate", "digits", digits, "--json", "-o", tmp_path / "seen")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found == json.loads((tmp_path / "seen" / "evaluation.json").read_text())
    images = len(list(digits.rglob("*.*")))
    assert found["images"] == images
    right = sum(row["accuracy"]["after"] * row["images"] for row in found["classes"])
    assert found["accuracy"]["after"] == pytest.approx(right / images)
    assert found["accuracy"]["after"] <= (images - 1) / images, "one label is wrong"
    assert found["accuracy"]["after"] > found["accuracy"]["before"], "turned digits are read once they are upright"
    assert sum(part["images"] for part in found["calibration"]["bins"]) == images
    assert found["calibration"]["of"] == "label"
    with PIL.Image.open(tmp_path / "seen" / "worst.png") as sheet:
        assert sheet.width > 1000
    table = stn("evaluate", "digits", digits).stdout
    assert (
        f"accuracy      {100 * found['accuracy']['before']:.2f} % → {100 * found['accuracy']['after']:.2f} %" in table
    )


def test_an_evaluation_replaces_another_only_if_it_may(digits, tmp_path):
    theirs = tmp_path / "worst.png"
    theirs.write_text("theirs")
    run = stn("evaluate", "digits", digits, "-o", tmp_path)
    assert run.returncode == 6
    assert "worst.png exists already" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["worst.png"]
    assert theirs.read_text() == "theirs"
    assert stn("evaluate", "digits", digits, "-o", tmp_path, "--on-exists", "overwrite", "--worst", "2").returncode == 0
    with PIL.Image.open(theirs) as sheet:
        assert sheet.width > 100
    assert json.loads((tmp_path / "evaluation.json").read_text())["images"] == len(TRUTH)


def test_poses_are_compared_with_corners_from_a_table(tmp_path):
    rows = ["file,class,x1,y1,x2,y2,x3,y3,x4,y4"]
    for name, known in json.loads((SAMPLES / "truth.json").read_text()).items():
        matrix = np.array(known["pixel_matrix"])
        corners = [matrix @ [x, y, 1] for x, y in ((0, 0), (28, 0), (28, 28), (0, 28))]
        numbers = ",".join(f"{value / w:.3f}" for *point, w in corners for value in point)
        rows.append(f"{name},{known['digit']},{numbers}")
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = json.loads(stn("evaluate", "digits", tmp_path, "--json").stdout)
    assert found["iou"]["median"] > 0.8
    assert found["corner_error"]["median"] < 0.1
    assert 0.5 < found["theta"]["zoom"]["mean"] < 1.1
    assert found["folds"] == 0


def test_parts_are_those_of_training(digits):
    parts = {}
    for part in ("train", "validation", "all"):
        run = stn("evaluate", "digits", digits, "--part", part, "--validation-share", "0.3", "--json")
        parts[part] = json.loads(run.stdout)["images"]
    assert parts["train"] + parts["validation"] == parts["all"]


def test_the_held_out_part_is_the_one_of_the_models_own_run(tmp_path):
    """The digits model held a twentieth out, by a hash of each image."""
    for number in range(400):
        folder = tmp_path / str(number % 2)
        folder.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.random.default_rng(number).integers(0, 255, (12, 12), np.uint8)).save(
            folder / f"{number}.png"
        )
    asked = ("evaluate", "digits", tmp_path, "--part", "validation", "--json")
    same, twentieth, tenth = (
        json.loads(stn(*asked, *share).stdout)["images"]
        for share in ((), ("--validation-share", "0.05"), ("--validation-share", "0.1"))
    )
    assert same == twentieth < tenth


@pytest.mark.parametrize("said", [{}, {"config": 7}, {"config": {"validation_share": "much"}}])
def test_what_strangers_say_of_their_split_may_be_anything(said):
    assert Split.of_run(said) == Split()


def test_tiffs_of_several_pages_are_images_to_a_model_of_images(tmp_path):
    for number in range(4):
        pages = [PIL.Image.new("L", (28, 28), 40 * number + page) for page in range(3)]
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        pages[0].save(tmp_path / str(number % 2) / f"{number}.tif", save_all=True, append_images=pages[1:])
    run = stn("evaluate", "digits", tmp_path, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["images"] == 4


def test_a_transformer_inside_a_classifier_has_no_before(tmp_path):
    data = dataset()
    _, checkpoint = trained(data, tmp_path / "run", insert_at=1)
    found, cases = evaluate(OnnxEngine(checkpoint), data.validation)
    assert found.accuracy.before is None
    assert found.accuracy.after == np.mean([case.location.label == case.truth for case in cases])
    for kind, image in enumerate(data.validation.images[:6]):
        (tmp_path / "data" / str(kind % 2)).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image[..., 0]).save(tmp_path / "data" / str(kind % 2) / f"{kind}.png")
    run = stn("evaluate", tmp_path / "run", tmp_path / "data", "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "accuracy      0.00 %\n" in run.stdout, "these classes are called otherwise"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nomodel", "."], 5),
        (["digits", "nowhere"], 9),
        (["digits", ".", "--part", "test"], 9),
        (["digits", ".", "--labels", "none.csv"], 9),
    ],
)
def test_what_cannot_be_evaluated_is_said(arguments, code, tmp_path):
    for number in range(3):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{number % 2}" / f"{number}.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = stn("evaluate", *arguments, cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert run.stderr.startswith("error: ")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)],
)
def test_edit_distances(a, b, distance):
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def test_a_text_model_is_measured_by_its_poses_alone(tmp_path):
    words = SAMPLES.parent / "words"
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((words / "turned.png").read_bytes())
    found = json.loads(stn("evaluate", "text", tmp_path, "--json").stdout)
    assert "accuracy" not in found
    top = np.array(json.loads((words / "truth.json").read_text())["turned.png"]["fiducials"])[:10]
    x, y = top[-1] - top[0]
    assert found["theta"]["turn"]["mean"] == pytest.approx(math.degrees(math.atan2(y, x)), abs=5)


def test_turns_are_those_that_a_person_sees():
    height, width, angle = 40, 120, np.radians(30)
    to_pixels = np.diag([width / 2, height / 2])
    turned = np.linalg.inv(to_pixels) @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ to_pixels
    transform = Affine(np.concatenate((turned, np.zeros((2, 1))), axis=1).ravel())
    folds, theta = _theta([transform], [(height, width)])
    assert (folds, theta["turn"].mean) == (0, pytest.approx(30))
    assert theta["zoom"].mean == pytest.approx(1)


class Reads(OnnxEngine):
    """Reads what it is told of crops and of whole images."""

    def __init__(self, checkpoint, crops, wholes):
        super().__init__(checkpoint)
        self.crops, self.wholes = crops, wholes

    def locate(self, smalls, *_):
        frames = Affine(np.tile([0.5, 0.0, 0.0, 0.0, 0.5, 0.0], (len(smalls), 1)))
        return Located(frames, np.ones(len(smalls)), [(text, 0.9) for text in self.crops])

    def labels(self, *_):
        return [(text, 0.9) for text in self.wholes]


def test_words_and_letters_are_counted_before_and_after(tmp_path):
    _, checkpoint = trained(dataset(texts=True), tmp_path)
    images = tuple(np.zeros((20, 20, 1), np.uint8) for _ in range(4))
    examples = Examples(images, np.full(4, -1), (), ("kitten", "flaw", "same", "up"))
    engine = Reads(checkpoint, ("sitten", "flaw", "same", ""), ("", "flow", "same", "pu"))
    found, _ = evaluate(engine, examples)
    assert (found.words.before, found.words.after) == (0.25, 0.5)
    assert (found.characters.before, found.characters.after) == ((6 + 1 + 0 + 2) / 16, (1 + 0 + 0 + 2) / 16)
    assert found.accuracy is None
    assert found.theta["zoom"].mean == pytest.approx(0.5)
    assert found.calibration.brier == pytest.approx((2 * 0.1**2 + 2 * 0.9**2) / 4)
    assert found.calibration.expected_error == pytest.approx(0.4)


def case(number, *, right, sure, iou=math.nan):
    location = Location(None, 0.5, "a", sure)
    return Case(number, location, "a", "a" if right else "b", math.nan, iou)


def test_the_worst_are_wrong_and_sure_of_it():
    cases = [
        case(0, right=True, sure=0.9, iou=0.5),
        case(1, right=False, sure=0.6, iou=0.9),
        case(2, right=True, sure=0.4, iou=0.1),
        case(3, right=False, sure=0.99, iou=0.95),
    ]
    assert [one.number for one in worst(cases, 3)] == [3, 1, 2]


def test_confidence_in_labels_is_not_mixed_with_that_in_poses():
    pose = Case(1, Location(None, 0.0, "a", 0.0), None, None, 0.0, 1.0)
    found = _calibration([pose, case(0, right=True, sure=1.0), *[pose] * 8])
    assert (found.of, found.expected_error, found.brier) == ("label", 0.0, 0.0)
    assert _calibration([pose]).of == "pose"


@pytest.mark.parametrize("share", [0, 1, -1, "nan"])
def test_a_share_that_holds_none_or_all_out_is_refused(share):
    run = stn("evaluate", "digits", SAMPLES, "--validation-share", share)
    assert run.returncode == 2, run.stderr


@pytest.mark.parametrize("parts", [("validation", "test"), ("test",)])
def test_data_without_a_training_part_is_measured_and_not_trained_on(tmp_path, parts):
    for part in parts:
        for number, path in enumerate(sorted(SAMPLES.glob("*.png"))[:8]):
            folder = tmp_path / "data" / part / str(number % 2)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    run = stn("evaluate", "digits", tmp_path / "data", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["images"] == 8
    refused = stn("train", tmp_path / "data", "-o", tmp_path / "run")
    assert refused.returncode == 9, refused.stderr
    assert "no part to learn from" in refused.stderr


def test_labels_that_say_nothing_of_the_model_are_named(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "data")
    (tmp_path / "data" / "7").rename(tmp_path / "data" / "seven")
    run = stn("evaluate", "digits", tmp_path / "data")
    assert "the model knows no class seven" in run.stderr
    assert "what the images show is not compared with anything" in stn("evaluate", "text", digits).stderr
