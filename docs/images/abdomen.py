"""Draws abdomen.png, with which the README begins: a phantom, its liver by the shipped model, and how sure that is.

    python docs/images/abdomen.py

No patient's data: the phantom is computed, and no phantom has trained the model.
"""

from __future__ import annotations

import io
import pathlib

import numpy as np
from PIL import Image

import liverjax
from liverjax import labels
from liverjax.datasets import make_phantom
from liverjax.report.figures.canvas import BLUE, CT_WINDOW, YELLOW, draw_contour, draw_letter, new_figure, png
from liverjax.scans.grid import to_canonical
from liverjax.volume import Volume

# Name, axis across, axis to the viewer's left and to the top, letters of both: radiological orientation.
_PLANES = (("axial", 2, 0, 1, "R", "A"), ("coronal", 1, 0, 2, "R", "S"), ("sagittal", 0, 1, 2, "A", "S"))
_SEED = 9


def main() -> None:
    """Makes the phantom, segments it, and draws three planes with outlines above the entropy of the networks."""
    phantom = make_phantom(_SEED, shape=(160, 112, 112), spacing=(2.0, 2.0, 2.0))
    prediction = liverjax.load_model("ct_liver").predict(phantom.image, uncertainty=True)
    assert prediction.uncertainty is not None
    entropy_map = prediction.on_scan(prediction.uncertainty.entropy)
    draw(
        pathlib.Path(__file__).with_suffix(".png"),
        phantom.image,
        prediction.labels,
        phantom.label,
        entropy_map,
    )


def draw(path: pathlib.Path, scan: Volume, mask: Volume, truth: Volume, entropy_map: Volume) -> None:
    """Draws the picture.

    Args:
      path: the PNG that is written.
      scan: in HU.
      mask: what was predicted, label ids on the scan's grid.
      truth: what is true, likewise.
      entropy_map: entropy on the scan's grid, as a share of the greatest possible.
    """
    voxels, found, true, unsure = (to_canonical(volume).voxels for volume in (scan, mask, truth, entropy_map))
    liver = found != labels.BACKGROUND
    extent = to_canonical(scan).spacing * voxels.shape
    widths = [extent[left] for _, _, left, *_ in _PLANES]
    figure = new_figure(9, 0.4 + 9 * 2 * max(extent[1:]) / sum(widths), layout=None)
    figure.set_facecolor("black")
    place = {"left": 0, "right": 1, "bottom": 0.055, "top": 1, "wspace": 0.01, "hspace": 0.01}
    grid = figure.add_gridspec(2, 3, width_ratios=widths, **place)
    for column, (_, across, left, up, left_letter, up_letter) in enumerate(_PLANES):
        others = tuple(axis for axis in range(3) if axis != across)
        index = int(liver.sum(axis=others).argmax())
        plane, outline, reference, entropy = (
            np.moveaxis(array, across, 0)[index].T for array in (voxels, liver, true > 0, unsure)
        )
        where = {"origin": "lower", "extent": (0, extent[left], 0, extent[up])}
        for row in range(2):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(plane, cmap="gray", vmin=CT_WINDOW[0], vmax=CT_WINDOW[1], **where)
            if row == 0:
                spacing = to_canonical(scan).spacing[[left, up]]
                draw_contour(axes, reference, spacing, YELLOW, "dashed")
                draw_contour(axes, outline, spacing, BLUE, "solid")
                draw_letter(axes, 0.03, 0.5, left_letter)
                draw_letter(axes, 0.5, 0.95, up_letter)
            else:
                shown = axes.imshow(
                    np.ma.masked_less(entropy, 0.2), cmap="inferno", vmin=0, vmax=1, alpha=0.85, **where
                )
                if column == 1:
                    bar = figure.add_axes((0.62, 0.036, 0.2, 0.012))
                    figure.colorbar(shown, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
                    bar.tick_params(colors="white", labelsize=7, length=2, pad=1)
            axes.set(xlim=(extent[left], 0), ylim=(0, extent[up]))
            axes.axis("off")
    words = {"fontsize": 9, "va": "center", "y": 0.027}
    figure.text(0.01, s="— predicted liver", color=BLUE, **words)
    figure.text(0.17, s="- - true liver of the phantom", color=YELLOW, **words)
    figure.text(0.6, s="entropy of the three networks", color="white", ha="right", **words)
    # 256 colours, chosen to cover all of them and not by how many pixels have them, as most are grey.
    picture = Image.open(io.BytesIO(png(figure))).convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE)
    picture.save(path, optimize=True)


if __name__ == "__main__":
    main()
