"""The tables that operator.py prints of all shapes together."""

from __future__ import annotations

from math import exp, fsum, log

from benchmarks.measure import fitted_exponent, markdown

FLOOR = 'floor (2, 5 products)'
QUANTITIES = {'forward': 'Forward', 'step': 'Forward and backward'}
# Ratios of the summary: quantity's suffix, what is above and below.
RATIOS = (
    ('', 'auto', FLOOR),
    (', least', 'auto', FLOOR),
    ('', 'auto, channels last', f'{FLOOR}, channels last'),
    ('', 'auto, LN', 'auto'),
    (', least', 'auto, LN', 'auto'),
    ('', 'projections', 'auto'),
    ('', 'conv2d', 'auto'),
    ('', 'conv2d, channels last', 'auto, channels last'),
    ('', 'formula, autograd', 'auto'),
    ('', 'NonLocal2d, embedded', 'auto'),
    ('', 'NonLocal2d, dot', 'auto'),
    ('', 'non-local, SDPA', 'auto'),
)


def overview(rows: list[dict]) -> str:
    """Return one Markdown table a quantity, a line a shape: milliseconds, ratios; then memory."""
    at, shapes, names = _indexed(rows)
    others = [name for name in names if not name.startswith('floor')]
    text = []
    for quantity, title in QUANTITIES.items():
        header = ['B x C x H x W', 'N / C', *(n.replace(FLOOR, 'floor') for n in names)]
        header += ['auto / floor', 'literal / auto']
        lines = []
        for shape in shapes:
            mine = [at.get((shape, name), {}) for name in names]
            auto = at[shape, 'auto'][quantity]
            lines.append(
                [
                    *_shape_cells(shape),
                    *(_milliseconds(row, quantity) for row in mine),
                    f'{auto / at[shape, FLOOR][quantity]:.2f}',
                    f'{at[shape, "projections"][quantity] / auto:.2f}',
                ]
            )
        text.append(f'{title}, milliseconds:\n\n{markdown(header, lines)}')
    lines = [
        [*_shape_cells(shape), *(_memory(at.get((shape, name), {})) for name in others)]
        for shape in shapes
    ]
    table = markdown(['B x C x H x W', 'N / C', *others], lines)
    text.append(f'Kept for backward / peak of a step, in multiples of the input:\n\n{table}')
    return '\n\n'.join(text)


def summary(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Compute ratios over all shapes, and over those with N >= 16 C.

    Args:
        rows (list[dict]): What operator.py measured.

    Returns:
        dict[str, dict[str, float]]: Geometric ``mean``, ``least`` and ``most`` of each ratio, over
        the shapes at which both were run, and their number, ``shapes``.
    """
    at, shapes, _ = _indexed(rows)
    found = {}
    for label, chosen in (
        ('N >= 16 C', [s for s in shapes if s[2] * s[3] >= 16 * s[1]]),
        ('all', shapes),
    ):
        for quantity in QUANTITIES:
            for kind, above, below in RATIOS:
                key = quantity + kind
                pairs = [(at.get((s, above), {}), at.get((s, below), {})) for s in chosen]
                ratios = [a[key] / b[key] for a, b in pairs if key in a and key in b]
                found.update(_spread(f'{label}: {key}, {above} / {below}', ratios))
        kept = [at[s, 'auto']['kept'] for s in chosen]
        found.update(_spread(f'{label}: kept, auto / input', kept))
    return found


def summary_table(found: dict[str, dict[str, float]]) -> str:
    """Return ``summary`` in Markdown."""
    cells = [
        [key, *(f'{line[kind]:.3f}' for kind in ('mean', 'least', 'most')), str(line['shapes'])]
        for key, line in found.items()
    ]
    return markdown(['', 'geometric mean', 'least', 'most', 'shapes'], cells)


def exponents(rows: list[dict]) -> tuple[dict[str, float], str]:
    """Fit slopes of log time and log memory over log N, for every rival, channels and quantity.

    Args:
        rows (list[dict]): What operator.py measured with --scaling.

    Returns:
        tuple[dict[str, float], str]: The slopes by name, and a table of them in Markdown.
    """
    slopes = {}
    cells = []
    for channels in sorted({row['shape'][1] for row in rows}):
        for name in dict.fromkeys(row['name'] for row in rows):
            mine = [
                r for r in rows if r['shape'][1] == channels and r['name'] == name and 'step' in r
            ]
            counts = [r['shape'][3] for r in mine]
            if len(counts) < 2:
                continue
            line = [f'{name}, C = {channels}', f'{counts[0]:,} to {counts[-1]:,}']
            for quantity in ('forward', 'step', 'kept', 'peak'):
                if quantity not in mine[0]:
                    line.append('')
                    continue
                scale = counts if quantity in ('kept', 'peak') else [1] * len(counts)
                values = [r[quantity] * s for r, s in zip(mine, scale)]
                slope = fitted_exponent(counts, values)
                slopes[f'{name}, C={channels}, {quantity}'] = slope
                line.append(f'{slope:.3f}')
            cells.append(line)
    return slopes, markdown(['', 'N', 'forward', 'step', 'kept', 'peak'], cells)


def _indexed(rows: list[dict]) -> tuple[dict, list[tuple[int, ...]], list[str]]:
    """Return rows by (shape, name); shapes and names in their order, the floor first."""
    at = {(tuple(row['shape']), row['name']): row for row in rows}
    shapes = list(dict.fromkeys(shape for shape, _ in at))
    return at, shapes, list(dict.fromkeys(name for _, name in at))


def _spread(name: str, ratios: list[float]) -> dict[str, dict[str, float]]:
    if not ratios:
        return {}
    mean = exp(fsum(map(log, ratios)) / len(ratios))
    return {name: dict(mean=mean, least=min(ratios), most=max(ratios), shapes=len(ratios))}


def _shape_cells(shape: tuple[int, ...]) -> list[str]:
    return [' x '.join(map(str, shape)), f'{shape[2] * shape[3] / shape[1]:.1f}']


def _milliseconds(row: dict, quantity: str) -> str:
    return f'{row[quantity] * 1e3:.1f}' if quantity in row else row.get('left out', '')


def _memory(row: dict) -> str:
    return f'{row["kept"]:.2f} / {row["peak"]:.2f}' if 'kept' in row else ''
