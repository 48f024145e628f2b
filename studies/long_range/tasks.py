"""Generated images in which something far away decides the class of every labelled object.

An image is a torus of 3 x 3 cells with at most one square of 2 x 2 pixels each, on weak noise. The
nearest pixel that decides a label is ``deciding_distance`` away: a trunk that reaches less far
cannot be better than chance, 1/2 in every task.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

CELLS = 3  # per side
SQUARE = 2  # side of an object in pixels
NOISE = 0.1
WHITE, RED, BLUE = (1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)
PALETTE = torch.tensor(list(product((-1.0, 1.0), repeat=3)))  # 8 colours
NO_LABEL = -1


def deciding_distance(size: int) -> int:
    """int: pixels from a labelled object to the next object, along the nearer axis."""
    return size // CELLS - SQUARE + 1


# Tasks return colours (B, 9, 3), whether a cell has an object (B, 9) and its label (B, 9).


def _shuffled(
    colours: Tensor, labels: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Put objects of colours (B, n, 3) and labels (B, n) into random cells."""
    batch, count = labels.shape
    cells = torch.rand(batch, CELLS**2, generator=rng).argsort(dim=1)[:, :count]
    all_colours = torch.zeros(batch, CELLS**2, 3)
    all_colours.scatter_(1, cells[:, :, None].expand(-1, -1, 3), colours)
    filled = torch.zeros(batch, CELLS**2, dtype=torch.bool).scatter_(1, cells, True)
    all_labels = torch.full((batch, CELLS**2), NO_LABEL).scatter_(1, cells, labels)
    return all_colours, filled, all_labels


def _red_or_blue(red: Tensor) -> Tensor:
    return torch.where(red[..., None], torch.tensor(RED), torch.tensor(BLUE))


def cue(batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Four white objects; the colour of a red or blue one is their class."""
    red = torch.rand(batch, 1, generator=rng) < 0.5
    white = torch.tensor(WHITE).expand(batch, 4, 3)
    labels = torch.cat([torch.full((batch, 1), NO_LABEL), red.long().expand(-1, 4)], dim=1)
    return _shuffled(torch.cat([_red_or_blue(red), white], dim=1), labels, rng)


def majority(batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two white objects; their class is whether most of the seven others are red."""
    red = torch.rand(batch, 7, generator=rng) < 0.5
    white = torch.tensor(WHITE).expand(batch, 2, 3)
    most = (red.sum(dim=1, keepdim=True) > 3).long()
    labels = torch.cat([most.expand(-1, 2), torch.full((batch, 7), NO_LABEL)], dim=1)
    return _shuffled(torch.cat([white, _red_or_blue(red)], dim=1), labels, rng)


def _two_of_four(colours: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Four objects of colours a, a, b, c, (B, 3, 3) as a, b, c; the class is 1 for a."""
    labels = torch.tensor([1, 1, 0, 0]).expand(len(colours), 4)
    return _shuffled(colours[:, [0, 0, 1, 2]], labels, rng)


def twin(batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The class is whether another object has the same colour, one of eight."""
    choice = torch.rand(batch, len(PALETTE), generator=rng).argsort(dim=1)[:, :3]
    return _two_of_four(PALETTE[choice], rng)


def match(batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Like ``twin``, with new colours in every image."""
    colours = torch.randn(batch, 3, 3, generator=rng)
    return _two_of_four(3**0.5 * colours / colours.norm(dim=2, keepdim=True), rng)


def side(batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Three white objects in the middle column; is the red one left or right of them?"""
    left = torch.rand(batch, generator=rng) < 0.5
    row = torch.randint(CELLS, (batch,), generator=rng)
    colours = torch.zeros(batch, CELLS, CELLS, 3)
    filled = torch.zeros(batch, CELLS, CELLS, dtype=torch.bool)
    labels = torch.full((batch, CELLS, CELLS), NO_LABEL)
    colours[:, :, 1] = torch.tensor(WHITE)
    filled[:, :, 1] = True
    labels[:, :, 1] = left.long()[:, None]
    column = torch.where(left, 0, CELLS - 1)
    colours[torch.arange(batch), row, column] = torch.tensor(RED)
    filled[torch.arange(batch), row, column] = True
    return colours.flatten(1, 2), filled.flatten(1), labels.flatten(1)


TASKS = {'cue': cue, 'majority': majority, 'twin': twin, 'match': match, 'side': side}


def draw(task: str, batch: int, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw labelled images of a side that is a multiple of 3.

    Returns:
        tuple[Tensor, Tensor]: Images (B, 3, size, size), float32, and the pixels' labels
        (B, size, size), int64: 0 or 1 on labelled objects, NO_LABEL elsewhere.
    """
    colours, filled, cell_labels = TASKS[task](batch, rng)
    images = NOISE * torch.randn(batch, 3, size, size, generator=rng)
    labels = torch.full((batch, size, size), NO_LABEL)
    pitch = size // CELLS
    for cell in range(CELLS**2):
        row, column = divmod(cell, CELLS)
        ys = slice(row * pitch, row * pitch + SQUARE)
        xs = slice(column * pitch, column * pitch + SQUARE)
        here = filled[:, cell]
        images[here, :, ys, xs] += colours[here, cell][:, :, None, None]
        labels[:, ys, xs] = cell_labels[:, cell, None, None]
    # Where left and right matter, columns stay in their third of the image.
    across = pitch - SQUARE + 1 if task == 'side' else size
    down_by = torch.randint(size, (batch,), generator=rng)
    right_by = torch.randint(across, (batch,), generator=rng)
    rows = (torch.arange(size) - down_by[:, None]) % size
    columns = (torch.arange(size) - right_by[:, None]) % size
    index = torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]
    return images.movedim(1, -1)[index].movedim(-1, 1).contiguous(), labels[index]
