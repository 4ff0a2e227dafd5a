"""Images a second in training: `stn train` on MNIST with an affine transformer, and the PyTorch tutorial's own loop.

    python -m benchmarks.throughput MNIST --work DIR --peers PYTHON [--rounds 3]

PYTHON is an interpreter with torch and torchvision. Both train on the same machine, one after the other, round by
round, data loading included: the tutorial one epoch of 60,000 images in batches of 64 with its four workers, and with
one; ours as many images, with the defaults, and with `--precision bf16`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.commands import stn_train
from benchmarks.provenance import RESULTS, provenance, write_report

IMAGES = 60_000

PEER = """
import sys, time, warnings
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import datasets, transforms

warnings.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(1, 8, 7), nn.MaxPool2d(2), nn.ReLU(True), nn.Conv2d(8, 10, 5), nn.MaxPool2d(2), nn.ReLU(True)
        )
        self.place = nn.Sequential(nn.Linear(90, 32), nn.ReLU(True), nn.Linear(32, 6))
        nn.init.zeros_(self.place[2].weight)
        self.place[2].bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.read = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(True), nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2),
            nn.ReLU(True), nn.Flatten(), nn.Linear(320, 50), nn.ReLU(True), nn.Dropout(), nn.Linear(50, 10),
        )

    def forward(self, x):
        theta = self.place(self.look(x).flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, x.size(), align_corners=False)
        return F.log_softmax(self.read(F.grid_sample(x, grid, align_corners=False)), dim=1)


prepared = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
data = datasets.MNIST(sys.argv[1], train=True, transform=prepared)
loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, num_workers=int(sys.argv[2]))
net = Net().train()
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
started = time.perf_counter()
for x, y in loader:
    optimizer.zero_grad()
    F.nll_loss(net(x), y).backward()
    optimizer.step()
print(len(data) / (time.perf_counter() - started))
"""


def ours(mnist: Path, run: Path, *options: str) -> float:
    """Images a second between the first and the last entry of the log of a run without validations on the way."""
    shutil.rmtree(run, ignore_errors=True)  # a run that is finished has nothing left to time
    steps = IMAGES // 256
    stn_train([mnist], run, ["--steps", str(steps), "--objective", "classify", "-q", *options])
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = [entry for entry in log if "seconds" in entry]
    return 256 * float(timed[-1]["step"]) / float(timed[-1]["seconds"])


def theirs(python: Path, mnist: Path, workers: int) -> float:
    done = subprocess.run(
        [str(python), "-c", PEER, str(mnist), str(workers)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def unpacked(mnist: Path, folder: Path) -> Path:
    """MNIST as torchvision wants it."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for path in mnist.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tree = unpacked(arguments.mnist, arguments.work / "torchvision")
    rates: dict[str, list[float]] = {"stn": [], "stn_bf16": [], "tutorial": [], "tutorial_best_workers": []}
    for number in range(arguments.rounds):
        rates["stn"].append(ours(arguments.mnist, arguments.work / f"throughput-{number}"))
        rates["stn_bf16"].append(ours(arguments.mnist, arguments.work / f"bf16-{number}", "--precision", "bf16"))
        rates["tutorial"].append(theirs(arguments.peers, tree, 4))
        rates["tutorial_best_workers"].append(theirs(arguments.peers, tree, 1))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    report = {
        **provenance("throughput", sys.argv[1:]),
        "images_a_second": rates,
        "medians": medians,
        "ratio": medians["stn"] / medians["tutorial"],
        "ratio_best_workers": medians["stn"] / medians["tutorial_best_workers"],
        "ratio_bf16": medians["stn_bf16"] / medians["tutorial"],
    }
    write_report(RESULTS / "throughput.json", report)
    print(json.dumps(report["medians"]), report["ratio"], report["ratio_best_workers"], report["ratio_bf16"])


if __name__ == "__main__":
    main()
