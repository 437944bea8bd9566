"""The picture of `parameters` (small: one picture): a stacked bar of the groups, and a bar per part."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pophood.look.figures.parts import LABEL, bars, legend, size
from pophood.look.figures.theme import Theme
from pophood.look.views.parameters import ParametersView, share_text
from pophood.phrases import phrase


def draw(view: ParametersView, figure: Figure, theme: Theme) -> None:
    """Draw the stacked bar above and the parts below, both in the colours of the groups."""
    size(figure, 8.6, 1.6 + 0.27 * len(view.parts))
    whole, parts = figure.subplots(2, 1, height_ratios=[1.0, 0.4 * len(view.parts)])
    names = dict.fromkeys(part.group for part in view.parts)
    colours = {group: theme.accents[i] for i, group in enumerate(names)}
    left, handles = 0.0, []
    for group, numbers in view.groups.items():
        share = numbers / view.total
        whole.barh(0, share, left=left, height=0.8, color=colours[group], edgecolor=theme.background)
        handles.append(Patch(color=colours[group], label=f"{phrase(group)} {share_text(share)}"))
        left += share
    whole.set(xlim=(0, 1), yticks=[])
    whole.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    whole.set_title(phrase("share of all parameters"), loc="left", fontsize=LABEL)
    whole.spines[:].set_visible(False)
    legend(parts, handles)
    labels = [phrase(part.name) for part in view.parts]
    millions = [part.parameters / 1e6 for part in view.parts]
    bars(parts, labels, millions, theme, numbers=[f"{part.parameters:,}" for part in view.parts])
    for patch, part in zip(parts.patches, view.parts, strict=True):
        patch.set_color(colours[part.group])
    parts.set(xlabel=phrase("millions of parameters, all blocks together"), xlim=(0, 1.22 * max(millions)))
