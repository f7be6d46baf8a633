"""Small changes of probabilities keep their digits."""

import pytest
import torch
from numpy.testing import assert_allclose

from lsi.probes.softmax.math import probability_shift


@pytest.mark.parametrize("others", [1e-3, 1e-7, 1e-11])
@pytest.mark.parametrize("drop", [1e-4, 1.0, 6.0, 12.0, 18.0, 25.0, 60.0])
@pytest.mark.parametrize("each", [False, True], ids=["one p for all", "a p for each"])
def test_a_label_that_falls_keeps_the_digits_of_its_change(others, drop, each):
    """Without the likeliest class as the point of view, float32 gave zero, and others' changes at 1e-3."""
    p = torch.tensor([[1.0 - 6 * others, others, 2 * others, 3 * others]], dtype=torch.float64)
    shift = drop * torch.tensor([[-1.0, 0.1, 0.2, 0.3]], dtype=torch.float64)[:, :, None]
    logits = torch.log(p)[:, :, None]
    # 1 − p₁ = Σ others: the label's change without a difference of numbers near one.
    after = torch.softmax(logits + shift, 1)
    expected = after - p[:, :, None]
    expected[:, 0] = p[:, 1:].sum() - after[:, 1:].sum(1)
    given = p[:, :, None] if each else p
    found = probability_shift(given.to(torch.float32), shift.to(torch.float32))
    assert_allclose(found, expected, rtol=1e-4)  # a shift of 60 is rounded to 4e-6 itself
