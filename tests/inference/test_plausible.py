"""What is said of a predicted liver by its volume."""

import pytest

from liverjax.inference.plausible import doubts


@pytest.mark.parametrize(
    ("liver_ml", "body_ml", "said"),
    [
        (0, 9000, "no liver is found"),
        (5001, 20_000, "a liver of 5001 ml is found, expected at most 5000 ml"),
        (450, 600, "the liver that is found fills 75% of the 600 ml that are not air, expected at most 50%"),
        (3, 0, "the liver that is found fills nothing but air, expected at most 50%"),
    ],
)
def test_volumes_that_no_patient_has(liver_ml, body_ml, said):
    assert doubts(liver_ml, body_ml) == [said]


def test_a_liver_of_most_of_a_body_is_said_to_be_both():
    assert len(doubts(12_000, 16_000)) == 2


@pytest.mark.parametrize(("liver_ml", "body_ml"), [(1500, 9000), (5000, 10_000), (0.1, 0.2)])
def test_ordinary_livers(liver_ml, body_ml):
    assert doubts(liver_ml, body_ml) == []
