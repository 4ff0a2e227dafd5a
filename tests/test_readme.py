"""The README: every command and every line of Python in it works, every option is listed."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import typer.main

from stn_cli.cli.main import app
from stn_cli.errors import EXIT_INTERRUPTED, EXIT_OK, StnError
from stn_cli.training.config import read_config
from tests.running import HAS_TORCHVISION, ROOT, STANDINS

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip() for language, block in BLOCKS if language == "sh" for line in block.splitlines()
]
STN = [part.strip() for command in COMMANDS for part in command.split("&&") if part.strip().startswith("stn ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what the README's commands speak of."""
    folder = tmp_path_factory.mktemp("desk")
    samples = ROOT / "sample_images"
    shutil.copytree(samples, folder / "sample_images")
    shutil.copy(samples / "words" / "arch.jpg", folder / "img.png")
    shutil.copytree(samples, folder / "crops" / "may")
    rng = np.random.default_rng(0)
    for digit in "0123456789":
        (folder / "mnist" / digit).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / "mnist" / digit / f"{number}.png")
    return folder


def run(desk, arguments):
    path = [ROOT] if HAS_TORCHVISION else [ROOT, STANDINS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(arguments, capture_output=True, text=True, cwd=desk, env=environment, check=False)


def test_commands_work_in_the_order_of_the_readme(desk):
    assert len(STN) >= 6
    for command in STN:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "train":
            arguments += ["--steps", "2", "--batch-size", "4", "-q"]
        done = run(desk, [sys.executable, "-m", "stn_cli", *arguments])
        assert done.returncode == 0, (command, done.stderr)
    assert (desk / "rectified" / "theta.jsonl").is_file()
    assert (desk / "img.rectified.json").is_file()
    assert (desk / "out" / "may" / "words" / "arch.jpg").is_file()


@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python"])
def test_python_works(desk, code):
    done = run(desk, [sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_configuration_is_one(tmp_path):
    (text,) = [block for language, block in BLOCKS if language == "toml"]
    (tmp_path / "config.toml").write_text(text)
    assert read_config(tmp_path / "config.toml").stages[0].transform.kind == "affine"


def test_installing_and_testing_is_what_ci_does():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (line,) = [command for command in COMMANDS if "[dev]" in command]
    install, test = line.split(" && ")
    assert install.replace("pip install", "pip install --quiet") in script
    assert re.search(rf"^{test}$", script, re.MULTILINE)


@pytest.mark.parametrize(("name", "section"), [("rectify", "Commands"), ("train", "Train your own")])
def test_every_option_is_in_a_table_of_its_section(name, section):
    command = typer.main.get_command(app).commands[name]
    options = [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    listed = set(re.findall(r"`(--?[a-z-]+)`", "\n".join(rows)))
    assert {name for name in options if name.startswith("-")} <= listed


def test_every_exit_code_is_listed():
    codes = {EXIT_OK, EXIT_INTERRUPTED, *(error.exit_code for error in (StnError, *StnError.__subclasses__()))}
    (section,) = re.findall(r"## Exit codes\n\n(.*?)\n\n##", README, re.DOTALL)
    assert {int(code) for code in re.findall(r"(?:^|· |\n)(\d+) ", section)} == codes


@pytest.mark.parametrize(
    "page", ["README.md", "benchmarks/README.md", "models/digits/README.md", "models/text/README.md"]
)
def test_linked_files_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    assert all((ROOT / page).parent.joinpath(link).exists() for link in links)


def test_every_benchmark_and_every_result_is_listed():
    folder = ROOT / "benchmarks"
    page = (folder / "README.md").read_text(encoding="utf-8")
    commands = {file.stem for file in folder.glob("*.py") if "__main__" in file.read_text(encoding="utf-8")}
    listed = {name for name in re.findall(r"`([a-z_]+)[^`]*`", page) if (folder / f"{name}.py").exists()}
    assert commands == listed
    results = {file.stem for file in (folder / "results").glob("*.json")} - {"curves"}  # shown as a plot
    assert results == set(re.findall(r"results/([\w-]+)\.json", page))
