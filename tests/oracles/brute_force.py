"""Leave-one-out by refitting without the sample, and the LSI from the definitions of the posteriors."""

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import helmert
from tests.oracles import softmax_probe
from tests.oracles.gaussian_kl import dense_kl


@dataclass
class LeaveOneOut:
    """Optima with and without each sample, and everything that is defined by them.

    Attributes:
        x: `(N, D)` with the intercept column, float64.
        y: Class codes.
        n_classes: C; it stays where the only sample of a class is left out.
        weight_decay: On the scale of the mean loss, of N samples and of N − 1 alike.
        weight: Sample weights; those of the full data also when one is left out.
        heads: Overrides the optima: `(C, D)` by left-out position, None for the full data.
    """

    x: np.ndarray
    y: np.ndarray
    n_classes: int
    weight_decay: float
    weight: np.ndarray
    heads: dict = field(default_factory=dict)

    def kept(self, left_out):
        """Return the mask of the samples that are left without one, several (a tuple), or None."""
        gone = [] if left_out is None else np.ravel(left_out)
        return ~np.isin(np.arange(len(self.x)), gone)

    def head(self, left_out=None):
        """Return the weights `(C, D)` trained without a sample or several, or on all of them."""
        if left_out not in self.heads:
            # Everything lives in the span of the samples; where it is small this is much cheaper.
            x, basis = softmax_probe.row_space(self.x)
            keep = self.kept(left_out)
            start = None if left_out is None else self.head() @ basis
            theta = softmax_probe.fit(
                x[keep], self.y[keep], self.n_classes, self.weight_decay, self.weight[keep], start
            )
            self.heads[left_out] = theta @ basis.T
        return self.heads[left_out]

    def precision(self, structure, prior_precision, left_out=None):
        """Return the posterior precision at `head(left_out)`: a vector for diag, else `(K, K)`.

        For kron and full the coordinates are those of `coordinates`.

        Args:
            structure: "diag", "kron" or "full".
            prior_precision: τ.
            left_out: Position that is left out, or None.
        """
        keep = self.kept(left_out)
        x, weight, theta = self.x[keep], self.weight[keep], self.head(left_out)
        p = softmax_probe.probabilities(theta, x)
        if structure == "diag":
            return ((weight[:, None] * p * (1 - p)).T @ x**2).ravel() + prior_precision
        contrasts, basis = self.coordinates()
        x, theta = x @ basis, theta @ basis
        if structure == "full":
            data = softmax_probe.curvature(theta, x, weight)
        else:
            class_factor = (np.diag(weight @ p) - (p.T * weight) @ p) / len(x)
            data = np.kron(class_factor, x.T @ x)
        data = in_contrasts(data, contrasts)
        return data + prior_precision * np.eye(len(data))

    def coordinates(self):
        """Return orthonormal bases of the classes' contrasts and of the samples' span.

        Outside of them both precisions equal τ and the weights do not differ: no divergence comes from
        there, but rounding does.
        """
        if "coordinates" not in self.heads:
            narrow = len(self.x) < self.x.shape[1]
            basis = softmax_probe.row_space(self.x)[1] if narrow else np.eye(self.x.shape[1])
            self.heads["coordinates"] = helmert(self.n_classes).T, basis
        return self.heads["coordinates"]

    def terms(self, structure, prior_precision, left_out):
        """Return mean and covariance term of the LSI of a sample, or of several together, in nats."""
        key = (structure, prior_precision)
        if key not in self.heads:
            self.heads[key] = self.precision(structure, prior_precision)
        first, second = self.heads[key], self.precision(structure, prior_precision, left_out)
        delta = self.head(left_out) - self.head()
        if structure == "diag":
            u = (second - first) / first
            return 0.5 * np.sum(delta.ravel() ** 2 * second), 0.5 * np.sum(u - np.log1p(u))
        contrasts, basis = self.coordinates()
        return dense_kl(first, second, contrasts.T @ delta @ basis)

    def lsi(self, structure, prior_precision, left_out):
        """Return the LSI of the samples at the positions `left_out`, in nats."""
        return np.array([sum(self.terms(structure, prior_precision, i)) for i in left_out])

    def probability(self, left_out):
        """Return the class probabilities of a sample under the model that never saw it, `(C,)`."""
        return softmax_probe.probabilities(self.head(left_out), self.x[left_out : left_out + 1])[0]

    def leverage(self, left_out):
        """Return `tr(S_i E_iᵀ H̄⁻¹ E_i)`, `H̄ = Σ_j h_j + (N − 1) wd I`, at the full-data weights."""
        contrasts, basis = self.coordinates()
        x, theta = self.x @ basis, self.head() @ basis
        hessian = in_contrasts(softmax_probe.curvature(theta, x, self.weight), contrasts)
        hessian += (len(x) - 1) * self.weight_decay * np.eye(len(hessian))
        own = softmax_probe.curvature(theta, x[[left_out]], self.weight[[left_out]])
        return np.trace(np.linalg.solve(hessian, in_contrasts(own, contrasts)))


def in_contrasts(matrix, contrasts):
    """Return a matrix over class-feature pairs in the coordinates `contrasts` `(C, C − 1)` of the classes."""
    c, k = contrasts.shape
    blocks = matrix.reshape(c, len(matrix) // c, c, -1)
    blocks = np.einsum("cr,cdef,es->rdsf", contrasts, blocks, contrasts, optimize=True)
    return blocks.reshape(k * blocks.shape[1], -1)
