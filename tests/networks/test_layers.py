import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from stn_cli.networks.layers import ByteDropout, GreyConv2d


@pytest.mark.parametrize("size", [(28, 28), (27, 31), (8, 13), (1, 2)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_convolution_and_its_gradients_are_torchs(size: tuple[int, int], kernel: int) -> None:
    torch.manual_seed(0)
    layer = GreyConv2d(6, kernel).double()
    image = torch.randn(3, 1, *size, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(image), F.conv2d(image, layer.weight, stride=2, padding=kernel // 2)
    torch.testing.assert_close(ours, theirs)
    slope = torch.randn_like(theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y, (image, layer.weight), slope) for y in (ours, theirs)))


def test_an_image_that_needs_no_gradient_goes_through_torchs_convolution() -> None:
    layer, image = GreyConv2d(4, 5), torch.randn(2, 1, 9, 9)
    assert torch.equal(layer(image), F.conv2d(image, layer.weight, stride=2, padding=2))


@pytest.mark.parametrize("size", [(100_000,), (333, 301), (3, 1)])
def test_dropout_keeps_what_it_says_each_for_itself_and_makes_up_for_the_rest(size: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.ones(*size, requires_grad=True)
    y = ByteDropout(51)(x)
    kept = y > 0
    assert y.shape == x.shape
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 256 / 205))
    assert stats.binomtest(int((~kept).sum()), x.numel(), 51 / 256).pvalue > 1e-3
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(slope, y.detach())


def test_dropout_is_as_random_between_neighbours_as_torchs() -> None:
    torch.manual_seed(2)
    kept = (ByteDropout(64)(torch.ones(80_000)) > 0).view(-1, 8).long()
    counts = torch.bincount(kept.sum(1), minlength=9).numpy()
    expected = stats.binom.pmf(range(9), 8, 0.75) * len(kept)
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_dropout_draws_by_the_seed_anew_each_time_and_rests_in_evaluation() -> None:
    layer, x = ByteDropout(100), torch.ones(500)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert not torch.equal(first, second)
    assert torch.equal(layer.eval()(x), x)
