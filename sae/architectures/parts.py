"""Rows of a decoder that write several vectors side by side: of the sources of a crosscoder, or of several layers.

The length of a row is the sum of the lengths of its parts (Lindsey et al. 2024, Sparse Crosscoders): a latent of two
layers then costs what two latents cost, one in each. The length of the whole row would make the one cheaper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.errors import SAEError
from sae.seeding import INITIAL, generator


def starting_rows(rows: Tensor, written: tuple[int, ...], seed: int) -> Tensor:
    """Rows `(m, d)` of unit length, whose parts are equally long and in directions of their own.

    Of one part they are `rows`. Parts that began alike would stay alike in a network compared with itself, whatever the
    training does: that nothing is exclusive there would then be no finding.

    Raises:
        SAEError: the parts are not as wide as the rows.
    """
    if sum(written) != rows.shape[1]:
        raise SAEError(
            f"the parts {written} are {sum(written)} wide together; what is reconstructed is {rows.shape[1]}"
        )
    parts = [F.normalize(rows[:, : written[0]])] if len(written) > 1 else [rows]
    for number, width in enumerate(written[1:], 1):
        random = generator(seed, INITIAL, rows.shape[1], number)
        parts.append(F.normalize(torch.randn(len(rows), width, generator=random, dtype=torch.float32)))
    return _joined(parts)


def _joined(parts: list[Tensor]) -> Tensor:
    rows: Tensor = torch.cat(parts, dim=1) / len(parts) ** 0.5
    return rows


def part_lengths(rows: Tensor, written: tuple[int, ...]) -> Tensor:
    """Lengths `(parts, m)` of the parts of rows `(m, d)`."""
    return torch.stack([part.norm(dim=1) for part in torch.split(rows, list(written), dim=1)])


def normals(rows: Tensor, written: tuple[int, ...]) -> Tensor:
    """Unit normals `(m, d)` of the surface on which the parts of a row have this sum of lengths; of one part the row.

    A gradient without its component along them goes down without changing that sum.
    """
    if len(written) == 1:
        return rows
    parts = [F.normalize(part, dim=1) for part in torch.split(rows, list(written), dim=1)]
    return _joined(parts)
