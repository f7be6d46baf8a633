"""Two-class leave-one-out and its LSI with 60 digits: slow, and right where double precision is not."""

from functools import cached_property

import mpmath
from mpmath import mp

DIGITS = 60


class ExactLogistic:
    """A softmax probe of two classes, written as the logistic probe of its only contrast.

    Args:
        x: `(N, D)` features; a column of ones is appended.
        y: `(N,)` zeros and ones.
        weight_decay: On the scale of the mean loss.
    """

    def __init__(self, x, y, weight_decay):
        with mp.workdps(DIGITS):
            self.x = [[mp.mpf(float(value)) for value in row] + [mp.mpf(1)] for row in x]
            self.y, self.decay = [int(label) for label in y], mp.mpf(float(weight_decay))
            self.root = mp.sqrt(2)  # of the two equal and opposite weights of the contrast

    def lsi(self, posterior, left_out):
        """Return the divergence with prior precision one, by the textbook formula."""
        with mp.workdps(DIGITS):
            keep = [j for j in range(len(self.y)) if j != left_out]
            moved = self._fit(keep, self.head)
            first = self._precision(posterior, self.head, range(len(self.y)))
            second = self._precision(posterior, moved, keep)
            ratio = second * mpmath.inverse(first)
            trace = mp.fsum(ratio[d, d] for d in range(ratio.rows))
            step = moved - self.head
            if posterior == "diag":  # both rows of weights, each with a half of the step
                mean = 2 * mp.fsum(second[d, d] * step[d] ** 2 / 2 for d in range(len(step)))
                return float((2 * (trace - ratio.rows - mp.log(mp.det(ratio))) + mean) / 2)
            return float((trace - ratio.rows - mp.log(mp.det(ratio)) + (step.T * second * step)[0]) / 2)

    @cached_property
    def head(self):
        """Weights of the contrast, trained on all samples."""
        with mp.workdps(DIGITS):
            return self._fit(range(len(self.y)), mpmath.zeros(len(self.x[0]), 1))

    def _fit(self, keep, theta):
        for _ in range(400):
            value, gradient, hessian = self._objective(keep, theta)
            step = mpmath.lu_solve(hessian, gradient)
            decrement, length = (step.T * gradient)[0], mp.mpf(1)
            while (
                self._value(keep, theta - length * step) > value - length * decrement / 4 and length > 1e-12
            ):
                length /= 2
            theta = theta - length * step
            if decrement < mp.mpf(10) ** -DIGITS:
                break
        return theta

    def _objective(self, keep, theta):
        d, ridge = len(theta), self.decay * len(keep)
        gradient, hessian = ridge * theta, ridge * mpmath.eye(d)
        for j in keep:
            p, row = self._probability(theta, j), mpmath.matrix(self.x[j])
            gradient += self.root * (p - self.y[j]) * row
            hessian += 2 * p * (1 - p) * row * row.T
        return self._value(keep, theta), gradient, hessian

    def _value(self, keep, theta):
        losses = (mp.log1p(mp.exp(-self._logit(theta, j) * (2 * self.y[j] - 1))) for j in keep)
        return mp.fsum(losses) + self.decay * len(keep) * (theta.T * theta)[0] / 2

    def _logit(self, theta, j):
        return self.root * mp.fdot(theta, self.x[j])

    def _probability(self, theta, j):
        return 1 / (1 + mp.exp(-self._logit(theta, j)))

    def _precision(self, posterior, theta, keep):
        variance = {j: (p := self._probability(theta, j)) * (1 - p) for j in keep}
        d = len(theta)
        if posterior == "diag":
            return mpmath.diag([1 + mp.fsum(variance[j] * self.x[j][k] ** 2 for j in keep) for k in range(d)])
        out = mpmath.zeros(d, d)
        for j in keep:
            row = mpmath.matrix(self.x[j])
            out += (2 * variance[j] if posterior == "full" else 1) * row * row.T
        if posterior == "kron":
            out *= 2 * mp.fsum(variance.values()) / len(keep)
        return out + mpmath.eye(d)
