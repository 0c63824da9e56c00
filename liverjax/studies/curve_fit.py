"""Laws of learning curves: the score against the number of training patients, and how many a score needs.

The shortfall e = 1 - score follows a power law, e = e_inf + b n^-c, or an exponential plateau, e = e_inf + b exp(-n/c),
with e_inf and b not negative. For each shape c on a grid the other two follow by least squares; draws of the bootstrap
are fitted together. Both laws have three parameters; which of them a draw follows is drawn by their Akaike weights
(AICc, Burnham and Anderson 2002), so that what the laws disagree on widens the range.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

#: Fewest sizes that determine a law of three parameters and leave something to judge it by.
FEWEST_SIZES = 4
#: A number of patients beyond so many times the largest size is not said: no curve shows what comes there.
REACH = 4.0
_DRAWS = 1000
_GRID = 60
#: Free parameters of a law: three, and the variance of its errors.
_PARAMETERS = 4


@dataclasses.dataclass(frozen=True)
class Needed:
    """How many training patients a score needs.

    Attributes:
      score: the score.
      patients: by the fit of all scores; infinite if its plateau lies below.
      low, high: the 95 % range; ``high`` is infinite if draws of it lie beyond what can be said.
      said: whether the range ends within `REACH` times the largest size.
    """

    score: float
    patients: float
    low: float
    high: float
    said: bool


@dataclasses.dataclass(frozen=True)
class CurveFit:
    """The fit of a learning curve.

    Attributes:
      sizes: (k,) numbers of training patients.
      mean: (k,) mean score over patients and seeds.
      low, high: (k,) its 95 % interval.
      law: "power law" or "exponential plateau", that of the smaller AICc.
      aicc: of each law.
      plateau: score that no number of patients exceeds, with its 95 % range.
    """

    sizes: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    law: str
    aicc: dict[str, float]
    plateau: tuple[float, float, float]
    _draws: np.ndarray  # (draws, 4): law, e_inf, b, c; the first is the fit itself.

    def predict(self, patients: np.ndarray) -> np.ndarray:
        """Returns (3, n): the score by the fit, and its 95 % range, at numbers of training patients (n,)."""
        law, base, b, c = (column[:, None] for column in self._draws.T)
        scores = 1 - base - b * _shape(law, np.asarray(patients, float)[None], c)
        return np.stack([scores[0], *np.percentile(scores[1:], (2.5, 97.5), axis=0)])

    def needed(self, score: float) -> Needed:
        """Returns how many training patients a score needs."""
        law, base, b, c = self._draws.T
        rest = 1 - score - base
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = rest / b
            power, plateau = ratio ** (-1 / c), -c * np.log(ratio)
        patients = np.where(law == 0, power, plateau)
        patients = np.where(rest <= 0, math.inf, np.where((b == 0) | (patients < 1), 1.0, patients))
        low, high = np.quantile(patients[1:], (0.025, 0.975), method="inverted_cdf")
        limit = REACH * float(self.sizes.max())
        said = bool(high <= limit)
        return Needed(
            score, float(patients[0]), float(min(low, limit)), float(high) if said else math.inf, said
        )


def fit_curve(sizes: np.ndarray, scores: np.ndarray, *, seed: int = 0) -> CurveFit | None:
    """Fits both laws to scores; intervals by a bootstrap over patients and seeds.

    Patients and seeds are drawn each for itself, all sizes together, as the sizes are nested. Of m patients or seeds
    the deviations from the mean are enlarged by sqrt(m / (m - 1)), without which the variance is too small by that
    square, and those of seeds as far as Student's distribution is wider than the normal one: of three seeds the
    variance is hardly known.

    Args:
      sizes: (k,) numbers of training patients, rising.
      scores: (k, seeds, patients) of test patients, each at most 1; none may be NaN.
      seed: of the draws.

    Returns:
      None if there are fewer than `FEWEST_SIZES` sizes, two seeds or three patients: nothing can be said.

    Raises:
      ValueError: shapes do not fit, sizes do not rise, or a score is not finite or above 1.
    """
    sizes, scores = np.asarray(sizes, float), np.asarray(scores, float)
    if (
        scores.ndim != 3
        or sizes.shape != scores.shape[:1]
        or (np.diff(sizes) <= 0).any()
        or (sizes < 1).any()
    ):
        raise ValueError(f"sizes {sizes.tolist()} and scores of shape {scores.shape}, expected rising sizes")
    if not (np.isfinite(scores).all() and (scores <= 1).all()):
        raise ValueError("a score is not finite or above 1, expected scores of at most 1")
    _, seeds, patients = scores.shape
    if len(sizes) < FEWEST_SIZES or seeds < 2 or patients < 3:
        return None
    errors = 1 - scores
    mean = errors.mean((1, 2))
    rng = np.random.default_rng(seed)
    by_seed, by_patient = errors.mean(2) - mean[:, None], errors.mean(1) - mean[:, None]
    drawn = mean + _deviations(rng, by_seed, small=True) + _deviations(rng, by_patient, small=False)
    values = np.concatenate([mean[None], drawn])
    within = float(((errors.mean(2) - mean[:, None]) ** 2).sum())
    fits = [_fit(law, sizes, values) for law in (0, 1)]
    observations = len(sizes) * seeds
    squares = np.stack([seeds * found[:, 3] + within for found in fits], axis=1)
    criterion = _aicc(np.maximum(squares, 1e-30), observations)
    weights = np.exp(-0.5 * (criterion - criterion.min(1, keepdims=True)))
    second = rng.random(len(values)) * weights.sum(1) >= weights[:, 0]
    second[0] = criterion[0, 1] < criterion[0, 0]
    chosen = np.where(second[:, None], fits[1][:, :3], fits[0][:, :3])
    plateau = 1 - chosen[:, 0]
    low, high = np.percentile(1 - drawn, (2.5, 97.5), axis=0)
    names = ("power law", "exponential plateau")
    return CurveFit(
        sizes,
        1 - mean,
        low,
        high,
        names[int(second[0])],
        dict(zip(names, criterion[0].tolist(), strict=True)),
        (float(plateau[0]), float(np.percentile(plateau[1:], 2.5)), float(np.percentile(plateau[1:], 97.5))),
        np.column_stack([second.astype(float), chosen]),
    )


def _deviations(rng: np.random.Generator, values: np.ndarray, small: bool) -> np.ndarray:
    """Returns (draws, k): means of m columns of (k, m) that are drawn with replacement, with the right variance."""
    from scipy import stats

    count = values.shape[1]
    drawn = rng.integers(count, size=(_DRAWS, count))
    wider = math.sqrt(count / (count - 1))
    if small:
        wider *= float(stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975))
    return wider * values[:, drawn].mean(2).T


def _shape(law: np.ndarray | int, sizes: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.where(np.asarray(law) == 0, sizes**-c, np.exp(-sizes / c))


def _fit(law: int, sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns (draws, 4): e_inf, b, c, and the sum of squares, of the best of a grid of c."""
    grid = np.geomspace(0.05, 4, _GRID) if law == 0 else np.geomspace(sizes[0] / 4, 4 * sizes[-1], _GRID)
    best = np.full((len(values), 4), math.inf)
    level = values.mean(1)
    for c in grid:
        g = _shape(law, sizes, np.asarray(c))
        centred = g - g.mean()
        b = np.maximum((values - level[:, None]) @ centred / (centred @ centred), 0)
        base = level - b * g.mean()
        # A plateau above a perfect score is none: then the law goes to it.
        b = np.where(base < 0, np.maximum(values @ g / (g @ g), 0), b)
        base = np.maximum(base, 0)
        squares = ((values - base[:, None] - b[:, None] * g) ** 2).sum(1)
        better = squares < best[:, 3]
        best[better] = np.column_stack([base, b, np.full(len(b), c), squares])[better]
    return best


def _aicc(squares: np.ndarray, observations: int) -> np.ndarray:
    k = _PARAMETERS
    return observations * np.log(squares / observations) + 2 * k + 2 * k * (k + 1) / (observations - k - 1)
