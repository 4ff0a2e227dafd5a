import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from stn_cli.training.outset import MovingAverage

DECAY = 0.6


def told(averaged: torch.Tensor, now: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
    """As Tensorflow's ExponentialMovingAverage with num_updates."""
    decay = min(DECAY, (1 + int(updates)) / (10 + int(updates)))
    return decay * averaged + (1 - decay) * now if averaged.is_floating_point() else now


def test_the_average_is_that_of_torch_and_goes_on_from_its_state():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    start = copy.deepcopy(model.state_dict())
    ours, theirs = MovingAverage(model, DECAY), AveragedModel(model, avg_fn=told, use_buffers=True)
    for step in range(30):
        if step == 12:
            state, ours = ours.state_dict(), MovingAverage(model, DECAY)
            ours.load_state_dict(state)
        model(torch.randn(8, 3)).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.follow()
        theirs.update_parameters(model)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert int(ours.module[1].num_batches_tracked) == 30
    assert not torch.equal(ours.module[0].weight, start["0.weight"])
    assert not torch.equal(ours.module[0].weight, model[0].weight)
