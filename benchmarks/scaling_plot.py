"""The image of time and memory over the number of positions."""

from __future__ import annotations

from pathlib import Path

SHOWN = {
    'auto': ('Poly-NL', 'o-'),
    'formula, autograd': ('Poly-NL, formula as it stands', 's:'),
    'NonLocal2d, embedded': ('NonLocal2d', '^-'),
    'non-local, SDPA': ('non-local, SDPA', 'v--'),
    'ContextBlock': ('ContextBlock', 'x--'),
}
PANELS = (('step', 'seconds a forward and backward pass'), ('peak', 'MB at most, beside the input'))


def draw(report: dict, path: Path) -> None:
    """Draw log-log panels of a report of ``operator.py --scaling``.

    Args:
        report (dict): What the script writes as JSON.
        path (Path): PNG file.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SystemExit(f'no image {path}: matplotlib is not installed') from None
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    rows = [row for row in report['rows'] if row['name'] in SHOWN and 'step' in row]
    channels = sorted({row['shape'][1] for row in rows})
    figure, axes = plt.subplots(
        len(PANELS), len(channels), figsize=(5 * len(channels), 7), squeeze=False, sharex=True
    )
    itemsize = 4 if report['dtype'] == 'float32' else 2
    for line, (quantity, label) in zip(axes, PANELS):
        for axis, count in zip(line, channels):
            for name, (title, style) in SHOWN.items():
                mine = [r for r in rows if r['name'] == name and r['shape'][1] == count]
                if not mine or quantity not in mine[0]:
                    continue
                xs = [r['shape'][3] for r in mine]
                megabytes = [itemsize * count * n / 1e6 for n in xs]
                scale = megabytes if quantity == 'peak' else [1] * len(xs)
                slope = report['exponents'].get(f'{name}, C={count}, {quantity}')
                shown = title if slope is None else f'{title}: N^{slope:.2f}'
                axis.loglog(
                    xs, [r[quantity] * s for r, s in zip(mine, scale)], style, label=shown, ms=4
                )
            axis.set_title(f'C = {count}')
            axis.set_xlabel('positions N')
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
