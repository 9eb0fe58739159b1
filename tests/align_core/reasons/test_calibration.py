"""Entropy and calibration: by hand, against loops over the bins, and the coverage of the interval."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from align_core.errors import InputError
from align_core.reasons import calibration_error, entropy, first_class
from align_core.transfer import NO_RATE, resampled_counts


def by_loops(confidence: npt.NDArray[np.float64], hit: npt.NDArray[np.bool_], bins: int) -> float:
    """Equation 3 of Guo et al. (2017), in percent, bin by bin."""
    error = 0.0
    for number in range(1, bins + 1):
        inside = [i for i, p in enumerate(confidence) if (number - 1) / bins < p <= number / bins]
        if inside:
            error += len(inside) / len(hit) * abs(np.mean(hit[inside]) - np.mean(confidence[inside]))
    return 100 * error


def few(n: int) -> list[npt.NDArray[np.uint8]]:
    return list(resampled_counts(n, seed=0, resamples=500))


def test_entropy_by_hand_and_in_its_limits() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 0.0, -1000.0], [1000.0, 0.0, 0.0]])
    expected = [math.log(3), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), 0.0]
    np.testing.assert_allclose(entropy(logits).numpy(), expected, atol=1e-6)
    soft = entropy(logits, 1e6)
    assert (soft - math.log(3)).abs().max() < 1e-5
    rising = [entropy(torch.tensor([[3.0, 1.0, 0.0]]), t).item() for t in (0.5, 1, 2, 4, 16)]
    assert rising == sorted(rising)


def test_confidence_falls_with_the_temperature_and_hits_stay() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0])
    found = first_class(logits, labels, 2.0)
    np.testing.assert_allclose(found.confidence_B.numpy(), [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))])
    assert found.hit_B.tolist() == [True, False] == first_class(logits, labels).hit_B.tolist()


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_error_is_that_of_loops_over_the_bins(bins: int) -> None:
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(300), [0.0, 0.25, 0.5, 1.0]])
    confidence[300] = 1e-12  # 0 itself is in no bin of the paper, and no network of a class or more has it
    hit = rng.random(304) < 0.7
    found = calibration_error(confidence, hit, few(304), bins)
    assert found.value == pytest.approx(by_loops(confidence, hit, bins), abs=1e-10)
    assert found.low is not None and found.high is not None and found.value is not None
    assert 0 <= found.low < found.value < found.high


def test_by_hand_and_for_one_image() -> None:
    confidence, hit = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True])
    found = calibration_error(confidence, hit, few(4), 10)
    assert found.value == pytest.approx(100 * (0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6)))
    edge = calibration_error(np.array([0.5, 0.9]), np.array([True, False]), few(2), 2)  # 0.5 is in the first bin
    assert edge.value == pytest.approx(100 * (0.5 * abs(1 - 0.5) + 0.5 * abs(0 - 0.9)))
    one = calibration_error(np.array([0.8]), np.array([True]), few(1))
    assert one.value == pytest.approx(20) == one.high
    assert calibration_error(np.array([]), np.array([], dtype=bool), []) == NO_RATE


@pytest.mark.parametrize(("bias", "n"), [(0.0, 200), (-0.03, 200), (-0.1, 200), (0.1, 1000)])
def test_the_interval_covers_the_true_error(bias: float, n: int) -> None:
    rng = np.random.default_rng(1)

    def drawn(count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        confidence = 0.1 + 0.9 * rng.beta(4, 1.5, count)
        return confidence, np.clip(confidence + bias, 0, 1)

    confidence, accuracy = drawn(400_000)
    numbers = np.ceil(confidence * 15)
    true = 100 * sum(abs((accuracy - confidence)[numbers == own].sum()) for own in range(1, 16)) / len(confidence)
    resamples = [next(iter(resampled_counts(n, seed=0, resamples=300)))]
    covered = 0
    for _ in range(200):
        confidence, accuracy = drawn(n)
        found = calibration_error(confidence, rng.random(n) < accuracy, resamples)
        assert found.low is not None and found.high is not None
        covered += found.low <= true <= found.high
    assert covered >= 0.93 * 200


def test_what_does_not_fit_is_refused() -> None:
    fine, hit = np.array([0.5, 0.5]), np.array([True, False])
    with pytest.raises(InputError, match="a bool for each image"):
        calibration_error(fine, np.array([1, 0]), few(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a bool for each image"):
        calibration_error(fine, hit[:1], few(2))
    for value in (np.nan, -0.1, 1.1):
        with pytest.raises(InputError, match="between 0 and 1"):
            calibration_error(np.array([0.5, value]), hit, few(2))
    with pytest.raises(InputError, match="bins"):
        calibration_error(fine, hit, few(2), 0)
    with pytest.raises(InputError, match="no resamples"):
        calibration_error(fine, hit, iter(()))
    with pytest.raises(FloatingPointError, match="not finite"):
        entropy(torch.tensor([[torch.nan, 0.0]]))
    with pytest.raises(InputError, match="labels of shape"):
        first_class(torch.zeros(2, 3), torch.zeros(1, dtype=torch.int64))
