"""Images of time and memory over the number of positions, on logarithmic axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SHOWN = {
    'auto': ('Poly-NL', 'o-'),
    'formula, autograd': ('Poly-NL, formula as it stands', 's:'),
    'NonLocal2d, embedded': ('NonLocal2d', '^-'),
    'non-local, SDPA': ('non-local, SDPA', 'v--'),
    'ContextBlock': ('ContextBlock', 'x--'),
}
QUANTITIES = {'step': 'seconds a forward and backward pass', 'peak': 'MB at most, beside the input'}


@dataclass
class Panel:
    """A title, the vertical axis, and curves: name, style, xs, ys and more of matplotlib's."""

    title: str
    label: str
    curves: list[tuple[str, str, list, list, dict]] = field(default_factory=list)


def draw(report: dict, path: Path) -> None:
    """Draw what ``operator.py --scaling`` writes as JSON: a row a quantity, a column a width."""
    rows = [row for row in report['rows'] if row['name'] in SHOWN and 'step' in row]
    itemsize = 4 if report['dtype'] == 'float32' else 2
    panels = [
        [Panel(f'C = {count}', label) for count in sorted({row['shape'][1] for row in rows})]
        for label in QUANTITIES.values()
    ]
    for quantity, line in zip(QUANTITIES, panels):
        for panel, count in zip(line, sorted({row['shape'][1] for row in rows})):
            for name, (title, style) in SHOWN.items():
                mine = [r for r in rows if r['name'] == name and r['shape'][1] == count]
                mine = [r for r in mine if quantity in r]
                counts = [r['shape'][3] for r in mine]
                # What is stored of memory are multiples of the input.
                scale = [itemsize * count * n / 1e6 if quantity == 'peak' else 1 for n in counts]
                slope = report['exponents'].get(f'{name}, C={count}, {quantity}')
                shown = title if slope is None else f'{title}: N^{slope:.2f}'
                values = [r[quantity] * s for r, s in zip(mine, scale)]
                panel.curves.append((shown, style, counts, values, {}))
    draw_panels(panels, path)


# Of more curves the legend would hide some: it stands beside the row, whose panels show the same.
_MOST_INSIDE = 10


def draw_panels(panels: list[list[Panel]], path: Path) -> None:
    """Draw rows of panels into a PNG file.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SystemExit(f'no image {path}: matplotlib is not installed') from None
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    size = 5.5 * len(panels[0]), 1 + 3.5 * len(panels)
    figure, axes = plt.subplots(len(panels), len(panels[0]), figsize=size, squeeze=False)
    for axis, panel in zip(axes.flat, (panel for line in panels for panel in line)):
        for name, style, xs, ys, more in panel.curves:
            if xs:
                axis.loglog(xs, ys, style, label=name, ms=4, **more)
        axis.set(title=panel.title, xlabel='positions N', ylabel=panel.label)
        axis.grid(alpha=0.3)
        if len(panel.curves) <= _MOST_INSIDE:
            axis.legend(fontsize=7)
        elif axis in axes[:, -1]:
            axis.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
