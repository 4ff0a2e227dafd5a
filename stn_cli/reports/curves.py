"""The curves of a training run, from its log."""

import io
import json
from pathlib import Path
from typing import Any

from stn_cli.images import write_atomically

CURVES = "curves.png"
_SHARES = {
    "accuracy": ("accuracy", "C0", "-"),
    "accuracy_unrectified": ("accuracy, unrectified", "C0", ":"),
    "words": ("words right", "C1", "-"),
    "words_unrectified": ("words right, unrectified", "C1", ":"),
    "right": ("poses right", "C2", "-"),
    "iou": ("overlap with the true frame", "C4", "-"),
}
_SPREADS = {"zoom_mean": "zoom", "zoom_spread": "spread of zoom", "x_spread": "spread of x", "y_spread": "spread of y"}


def read_log(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's log, as far as they are whole."""
    entries = []
    for line in (run / "log.jsonl").read_bytes().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # the last, if the run is under way
            continue
    return entries


def write_curves(run: Path) -> None:
    """Draws `curves.png` into the folder of the run: loss, held-out measures, how θ moves; warnings as red lines."""
    from matplotlib.figure import Figure  # noqa: PLC0415  half a second that nothing else pays

    log = read_log(run)
    steps = [entry for entry in log if "loss" in entry]
    validations = [entry for entry in log if "validation" in entry]
    figure = Figure(figsize=(11, 7), layout="constrained")
    (loss, shares), (turns, spreads) = figure.subplots(2, 2)
    for name in sorted({name for entry in steps for name in entry} - {"step", "seconds", "rate"}):
        known = [entry for entry in steps if entry.get(name, 0) > 0]
        loss.plot([entry["step"] for entry in known], [entry[name] for entry in known], label=name, lw=1)
    loss.set(title="parts of the loss", yscale="log")
    for name, (label, colour, style) in _SHARES.items():
        _plot(shares, validations, name, label=label, color=colour, ls=style)
    shares.set(title="held-out images")
    for name in ("turn_mean", "turn_spread", "rotation_median"):
        _plot(turns, validations, name, label=name.replace("_", " "))
    turns.set(title="degrees")
    for name, label in _SPREADS.items():
        _plot(spreads, validations, name, label=label)
    spreads.set(title="zoom (1: as wide as the image) and spreads")
    for axes in (loss, shares, turns, spreads):
        for step in sorted({entry["step"] for entry in log if "warning" in entry}):
            axes.axvline(step, color="red", lw=0.5)
        axes.set_xlabel("step")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(run / CURVES, buffer.getvalue())


def _plot(axes: Any, validations: list[dict[str, Any]], name: str, **style: Any) -> None:
    known = [entry for entry in validations if name in entry["validation"]["overall"]]
    if known:
        values = [entry["validation"]["overall"][name] for entry in known]
        axes.plot([entry["step"] for entry in known], values, marker=".", **style)
