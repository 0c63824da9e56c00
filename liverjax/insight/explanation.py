"""All maps of one question, and their sanity checks."""

from __future__ import annotations

import dataclasses

import numpy as np

from liverjax.inference.segmenter import Segmenter
from liverjax.insight import attribution, sanity
from liverjax.insight.attribution import Map
from liverjax.insight.sanity import Curves
from liverjax.insight.seen import Question, Seen


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What speaks for the answer to a question, in one view.

    Attributes:
      question: which pixels and class.
      image: (H, W) the slice that the network sees.
      maps: by name.
      cascades: of `sanity.cascade` for the maps that take one pass: Seg-Grad-CAM and the gradient.
      curves: of `sanity.curves`, by name, and "random".
    """

    question: Question
    image: np.ndarray
    maps: dict[str, Map]
    cascades: dict[str, dict[str, float]]
    curves: Curves


def explain(
    model: Segmenter, seen: Seen, question: Question, *, tap: str = "", baseline: str = "air", smooth: int = 0
) -> Explanation:
    """Returns the maps of a question by every method, with their checks.

    Args:
      model: whose network of the question's view answers.
      seen: the scan.
      question: of `seen`.
      tap: of Seg-Grad-CAM; "": the bottleneck.
      baseline: of integrated gradients and occlusion.
      smooth: draws of SmoothGrad in place of the plain gradient; 0: none.

    Raises:
      ConfigError: an unknown tap or baseline.
    """
    network, trained = model.trained(question.view)
    image = seen.stack(question.view)[question.index]
    asked = image, question.pixels, question.label
    makers = {
        "Seg-Grad-CAM": lambda variables: attribution.grad_cam(network, variables, *asked, tap),
        "gradient": lambda variables: attribution.gradient(network, variables, *asked, smooth=smooth),
    }
    maps = {name: make(trained) for name, make in makers.items()}
    maps["integrated gradients"] = attribution.integrated_gradients(network, trained, *asked, baseline)
    maps["occlusion"] = attribution.occlusion(network, trained, *asked, baseline)
    cascades = {
        name: sanity.cascade(network, trained, question.pixels, make) for name, make in makers.items()
    }
    return Explanation(question, image, maps, cascades, sanity.curves(network, trained, *asked, maps))


def rows(explanation: Explanation) -> list[dict]:
    """Returns a row for each map: how it was made, and how it passes the checks."""
    random = {kind: float(sanity.area(curve).mean()) for kind, curve in explanation.curves["random"].items()}
    found = []
    for name, one in explanation.maps.items():
        own = {kind: float(sanity.area(curve)) for kind, curve in explanation.curves[name].items()}
        cascade = explanation.cascades.get(name)
        found.append(
            {
                "view": explanation.question.view,
                "map": one.method,
                "correlation with random weights": list(cascade.values())[-1] if cascade else None,
                "deletion": own["deletion"],
                "deletion, random order": random["deletion"],
                "insertion": own["insertion"],
                "insertion, random order": random["insertion"],
            }
        )
    return found
