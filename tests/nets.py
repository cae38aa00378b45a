"""Networks and pictures with known answers, shared by the tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from zoo.networks.inceptionv1 import LRN, Block, InceptionSpec, InceptionV1
from zoo.weights.loading import digest

# -- the planted net: a car detector whose weights were set by hand ----------------------------------------

WINDOW, BODY, WHEEL, TREE, RISING, FALLING = range(6)
CAR, BOUNDARY, MIXTURE = range(3)
RED, BLUE, GREEN, STRIPE, ANTISTRIPE, LEVEL = range(6)
PARTS = 24
#: weights per tap of the car's four parents: window rows above / below, body row, wheel rows, tree everywhere
UP, DOWN, MIDDLE, VETO = 0.5, -0.25, 0.75, -0.5
CAR_BIAS = -1.0
#: rows and columns of a painted car; at its neuron every tap of the kernel sees what it is made for
CAR_AT = (12, 16)


class Planted(nn.Module):
    """Colors and Gabors, then parts, then a car: windows above, body, wheels below, and no tree."""

    def __init__(self) -> None:
        super().__init__()
        self.edges_pre = nn.Conv2d(3, 6, 3, padding=1)
        self.edges = nn.ReLU()
        self.parts_pre = nn.Conv2d(6, PARTS, 3, padding=1)
        self.parts = nn.ReLU()
        self.objects_pre = nn.Conv2d(PARTS, 3, 5, padding=2)
        self.objects = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.logits = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.edges(self.edges_pre(x))
        x = self.parts(self.parts_pre(x))
        x = self.objects(self.objects_pre(x))
        return self.logits(self.flatten(self.pool(x)))


def planted_module() -> Planted:
    """The planted net in eval mode; only the distractors (parts 6 and on, and `MIXTURE`) are drawn at random."""
    net = Planted()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        w = net.edges_pre.weight
        for channel, own in ((RED, 0), (GREEN, 1), (BLUE, 2)):
            w[channel, :, 1, 1] = -0.5
            w[channel, own, 1, 1] = 1.0
        gabor = torch.tensor([-0.5, 1.0, -0.5]) / 3
        w[STRIPE, :, 1] = gabor
        w[ANTISTRIPE, :, 1] = -gabor
        w[LEVEL, :, :, 1] = torch.tensor([-0.5, 1.0, -0.5]) / 3
        w = net.parts_pre.weight
        w[WINDOW, BLUE, 1, 1] = 1
        w[BODY, RED, 1, 1] = 1
        w[TREE, GREEN, 1, 1] = 1
        w[WHEEL, STRIPE, 1, 1] = w[WHEEL, ANTISTRIPE, 1, 1] = 1
        w[RISING, STRIPE, 1, 1], w[RISING, ANTISTRIPE, 1, 1] = 1, -1
        w[FALLING, STRIPE, 1, 1], w[FALLING, ANTISTRIPE, 1, 1] = -1, 1
        w[6:] = torch.rand(PARTS - 6, 6, 3, 3, generator=generator) / 27
        w = net.objects_pre.weight
        w[CAR, WINDOW, :2], w[CAR, WINDOW, 3:] = UP, DOWN
        w[CAR, WHEEL, :2], w[CAR, WHEEL, 3:] = DOWN, UP
        w[CAR, BODY, 2] = MIDDLE
        w[CAR, TREE] = VETO
        net.objects_pre.bias[CAR] = CAR_BIAS
        w[BOUNDARY, RISING, 2, 2] = w[BOUNDARY, FALLING, 2, 2] = 0.5
        w[MIXTURE] = torch.randn(PARTS, 5, 5, generator=generator) / 10
        net.logits.weight[0] = torch.tensor([2.0, -1.0, 0.5])
        net.logits.weight[1] = torch.tensor([-2.0, 1.0, 0.0])
        net.logits.bias[:] = torch.tensor([0.25, -0.25])
    return net.eval()


def planted(dtype: torch.dtype = torch.float32) -> circuits.Model:
    """The planted net as a model called `planted`, 32 pixels."""
    return circuits.wrap(planted_module().to(dtype), circuits.InputSpec(size=32), name="planted")


def car_picture(brightness: float = 1.0, *, tree: bool = True, at: tuple[int, int] = CAR_AT) -> Tensor:
    """`(3, 32, 32)`: blue above, a red row, black and white stripes below, and one green pixel at (0, +2)."""
    picture = torch.zeros(3, 32, 32)
    y, x = at
    columns = slice(max(0, x - 4), x + 5)
    picture[2, max(0, y - 4) : y, columns] = brightness
    picture[0, y, columns] = brightness
    picture[:, y + 1 : y + 5, x - 4 : x + 5 : 2] = brightness
    if tree:
        picture[0, y, x + 2] = 0
        picture[1, y, x + 2] = brightness
    return picture


def car_pictures(n: int = 6) -> Tensor:
    """`(n, 3, 32, 32)` cars at `CAR_AT` of falling brightness 1, 0.9, ..."""
    return torch.stack([car_picture(1 - 0.1 * i) for i in range(n)])


def clutter(n: int = 24, seed: int = 0) -> Tensor:
    """`(n, 3, 32, 32)` cars and loose parts in random places on noise: pictures on which every unit varies."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    pictures = torch.rand(n, 3, 32, 32, generator=generator) * 0.1
    for i in range(n):
        if i % 2 == 0:
            car = car_picture(at=(draw(6, 24), draw(6, 24)), tree=i % 4 == 0)
            pictures[i] = torch.where(car.sum(dim=0) > 0, car, pictures[i])
        for channel in range(3):
            y, x = draw(0, 26), draw(0, 26)
            patch = torch.zeros(3, 6, 6)
            patch[channel] = 1
            pictures[i, :, y : y + 6, x : x + 6] = patch
        y, x = draw(0, 26), draw(0, 26)
        pictures[i, :, y : y + 6, x : x + 6] = torch.tensor([1.0, 0, 1, 0, 1, 0])
    return pictures


# -- small nets, one for every way in which people write networks ------------------------------------------


class Functional(nn.Module):
    """Rectifiers, pools and sums are function calls, partly in place; only convolutions are modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 5, 3, padding=1)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x), inplace=True)
        x = F.max_pool2d(x, 2)
        y = self.b(x)
        y += x
        y = y.relu_()
        y = F.relu(self.c(y), inplace=True)
        return self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Twice(nn.Module):
    """One ReLU module and one convolution that run twice in a forward pass, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = self.again(x)
        return self.again(self.relu(x))


class Undecided(nn.Module):
    """Control flow that depends on the data, so that torch.fx cannot trace it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().sum()) < -1e30:
            return x
        out: Tensor = self.inner(x)
        return out


class Residual(nn.Module):
    """A block as in ResNet: batch norm, in-place ReLU used twice, and a sum."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Branches(nn.Module):
    """Two branches of different receptive field, concatenated."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, 3, 1)
        self.reduce = nn.Conv2d(channels, 2, 1)
        self.reduce_relu = nn.ReLU()
        self.five = nn.Conv2d(2, 4, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.project = nn.Conv2d(channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.five(self.reduce_relu(self.reduce(x)))
        return torch.cat([self.one(x), wide, self.project(self.pool(x))], dim=1)


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        return x, self.relu(x)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + self.conv(y)


class Counting(nn.Module):
    """The identity, and how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x * 1


class Failing(nn.Module):
    """The identity, until it is told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        if self.fail:
            raise ValueError("the user's own forward failed")
        return x.contiguous()


def tiny_inception(*, lrn: bool = True) -> InceptionV1:
    """InceptionV1 with two blocks a stage and a handful of channels: the real module, TensorFlow's padding and LRN."""
    spec = InceptionSpec(
        stem=(4, 4, 6),
        blocks={
            "mixed3a": Block(3, 2, 4, 2, 3, 2),
            "mixed3b": Block(2, 3, 4, 2, 4, 2),
            "mixed4a": Block(4, 2, 4, 2, 2, 3),
        },
        pool_after=("conv2d0", "conv2d2", "mixed3b"),
        lrn=LRN(5, 1e-4, 0.75, 1.0) if lrn else None,
        stem_padding=(2, 3, 2, 3),
        classes=5,
    )
    return randomized(InceptionV1(spec))  # type: ignore[return-value]


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` in eval mode, with every weight, bias and running statistic drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                value.copy_(0.5 + drawn.abs())
            elif value.ndim > 1:
                value.copy_(drawn * (2 / value[0].numel()) ** 0.5)
            else:
                value.copy_(drawn * 0.2 + (1 if "bn" in name and name.endswith("weight") else 0))
    return module.eval()


def sequential(*parts: nn.Module, seed: int = 0) -> nn.Sequential:
    """A randomized `nn.Sequential` in eval mode."""
    return randomized(nn.Sequential(*parts), seed)  # type: ignore[return-value]


def wrap(module: nn.Module, size: int | tuple[int, int] = 16, channels: int = 3) -> circuits.Model:
    """`module` as a model with pictures of `size` pixels."""
    return circuits.wrap(module.eval(), circuits.InputSpec(size=size, channels=channels))


def pictures(n: int, size: int | tuple[int, int] = 16, channels: int = 3, seed: int = 0) -> Tensor:
    """`(n, channels, size, size)` uniform noise in [0, 1]."""
    hw = (size, size) if isinstance(size, int) else size
    return torch.rand(n, channels, *hw, generator=torch.Generator().manual_seed(seed))


def linearize(module: nn.Module) -> nn.Module:
    """`module` with rectifiers and normalization taken out and max pools averaging, in place: the brute force."""
    for name, part in list(module.named_children()):
        if isinstance(part, (nn.ReLU, nn.ReLU6, nn.LocalResponseNorm, nn.Dropout)):
            setattr(module, name, nn.Identity())
        elif isinstance(part, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(part.kernel_size, part.stride, part.padding, part.ceil_mode))
        else:
            linearize(part)
    return module


# -- what must be the same after as before -------------------------------------------------------------------


def hook_count(module: nn.Module) -> int:
    """Number of hooks of any kind on a module and all of its parts."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


def state(model: circuits.Model) -> tuple[object, ...]:
    """Everything of a model that no verb may change: weights, hooks, modes, gradients, active edits."""
    module = model.module
    return (
        digest(module.state_dict()),
        hook_count(module),
        tuple(p.requires_grad for p in module.parameters()),
        tuple(p.grad is None for p in module.parameters()),
        tuple(part.training for part in module.modules()),
        tuple(type(part) for part in module.modules()),
        len(model.node_edits),
    )


def every_layer(model: circuits.Model) -> Sequence[str]:
    """Names of all layers that are no branch of another."""
    return [name for name, layer in model.layers.items() if layer.part is None]


class LinearBasis:
    """Directions as a basis: latents are inner products, and are written back along the same directions."""

    def __init__(self, directions: Tensor) -> None:
        self.read = self.write = directions

    def encode(self, acts: Tensor) -> Tensor:
        return acts @ self.read.T.to(acts)
