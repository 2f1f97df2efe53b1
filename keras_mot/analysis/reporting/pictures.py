"""The figures of the page: of many layers, as many as a page of less than 2 MB can hold."""

import base64
import io
from typing import Any

import numpy as np

from keras_mot._packages import require_matplotlib
from keras_mot.analysis import plots
from keras_mot.analysis.reporting.markup import Markup, tag, text

_DARKNESS = 4  # shades of a mask, so that its picture stays small
_MASK_COLOUR = (0x3B, 0x83, 0xD6)  # seen on light and on dark paper


class Pictures:
    """Draws figures for one page, whose ids do not meet."""

    def __init__(self):
        self._count = 0

    def figure(self, drawn: Any, label: str, caption: str = "") -> Markup:
        """A Matplotlib figure as an element.

        Args:
            drawn: the figure.
            label: what it shows, for those who do not see it.
            caption: below it.
        """
        self._count += 1
        svg = Markup(plots.svg_of(drawn, prefix=f"f{self._count}", standalone=False, label=label))
        below = tag("figcaption", caption) if caption else ""
        return tag("figure", svg, below)

    def mask(self, density: np.ndarray, label: str) -> Markup:
        """The picture of a mask, each point as dark as the share of weights that are left."""
        require_matplotlib()
        from matplotlib.image import imsave

        pixels = np.zeros((*density.shape, 4), "uint8")
        pixels[..., :3] = _MASK_COLOUR
        pixels[..., 3] = np.ceil(density * _DARKNESS) / _DARKNESS * 255
        buffer = io.BytesIO()
        imsave(buffer, pixels, format="png")
        data = base64.b64encode(buffer.getvalue()).decode()
        return Markup(f'<img class="mask" alt="{text(label)}" src="data:image/png;base64,{data}">')
