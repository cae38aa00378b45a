"""Redirected rectifiers: nothing changes in what is computed, blocked pictures get a gradient, others keep theirs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from circuits.visualization.redirected_relu import redirected

FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": lambda x: nn.ReLU(inplace=True)(x * 1),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x * 1, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": lambda x: torch.relu_(x * 1),
    "method": lambda x: x.relu(),
    "method in place": lambda x: (x * 1).relu_(),
}
SIX: dict[str, Callable[[Tensor], Tensor]] = {"module": nn.ReLU6(), "F.relu6": F.relu6}


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_(True)
    out = function(x)
    (-(out * weight).sum()).backward()  # what is minimized
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("form", list(FORMS))
def test_blocked_images_are_redirected_and_others_are_not(form: str) -> None:
    x = torch.tensor([[-1.0, -2.0], [3.0, -4.0]]).view(2, 2, 1, 1)
    weight = torch.tensor([[2.0, -5.0], [7.0, 1.0]]).view(2, 2, 1, 1)
    plain, before = gradient(FORMS[form], x, weight)
    with redirected():
        out, after = gradient(FORMS[form], x, weight)
    assert torch.equal(out, plain) and torch.equal(before[0], torch.zeros(2, 1, 1))
    # the first picture is blocked: only what pulls its input up comes through
    assert after.flatten().tolist() == [-2.0, 0.0, -7.0, 0.0]
    assert torch.equal(gradient(FORMS[form], x, weight)[1], before), "over when the context is"


@pytest.mark.parametrize("form", list(SIX))
def test_a_relu6_at_its_upper_bound_is_redirected_down(form: str) -> None:
    x = torch.tensor([8.0, -3.0]).view(2, 1, 1, 1)
    with redirected():
        out, after = gradient(SIX[form], x, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
    assert out.flatten().tolist() == [6.0, 0.0] and after.flatten().tolist() == [1.0, -1.0]


def test_without_gradients_nothing_is_touched() -> None:
    with redirected():
        assert torch.equal(F.relu(torch.tensor([[-1.0, 2.0]])), torch.tensor([[0.0, 2.0]]))
        assert torch.relu(torch.tensor(-1.0)) == 0


@pytest.mark.parametrize("smooth", [nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.SiLU(inplace=True)])
def test_a_smooth_unit_that_is_off_everywhere_is_raised_and_not_driven_further_off(smooth: nn.Module) -> None:
    x = torch.tensor([[-3.0, 1.0], [-3.0, -2.0]], requires_grad=True)  # the objective is the first unit alone
    with redirected():
        (-smooth(x * 1.0)[:, 0].sum()).backward()
    assert x.grad is not None
    # a descent step on the loss raises it; by itself the function falls there, so that a step would lower it
    torch.testing.assert_close(x.grad, torch.tensor([[-1.0, 0.0], [-1.0, 0.0]]))
    plain = x.detach().clone().requires_grad_(True)
    (-smooth(plain * 1.0)[:, 0].sum()).backward()
    assert plain.grad is not None and bool((plain.grad[:, 0] > 0).all())


def test_a_smooth_unit_that_is_on_somewhere_keeps_its_gradient() -> None:
    x = torch.tensor([[[-3.0, 0.5], [-1.0, -1.0]]], requires_grad=True)
    with redirected():
        (-torch.nn.functional.gelu(x)[:, 0].sum()).backward()
    plain = x.detach().clone().requires_grad_(True)
    (-torch.nn.functional.gelu(plain)[:, 0].sum()).backward()
    assert x.grad is not None and plain.grad is not None and torch.equal(x.grad, plain.grad)
