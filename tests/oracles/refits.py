"""What rows do to losses and predictions elsewhere: the probe is trained again without them."""

import numpy as np
from scipy.special import expit, log_softmax
from tests.oracles import ridge, sigmoid_probe, softmax_probe


class SoftmaxRefits:
    """Refits of a softmax probe; x holds the intercept column if there is one."""

    def __init__(self, x, y, weight_decay, weight=None):
        self.x, self.y, self.weight_decay = x, y, weight_decay
        self.weight = np.ones(len(x)) if weight is None else weight
        self.n_classes = int(y.max()) + 1
        self.theta = softmax_probe.fit(x, y, self.n_classes, weight_decay, self.weight)

    def without(self, rows):
        """Return the weights `(C, D)` without the rows at some positions."""
        keep = np.setdiff1d(np.arange(len(self.x)), rows)
        # Weights of the classes are as they were: a row that leaves changes no other row's weight.
        return softmax_probe.fit(
            self.x[keep], self.y[keep], self.n_classes, self.weight_decay, self.weight[keep], self.theta
        )

    def log_p(self, theta, x):
        return log_softmax(x @ theta.T, axis=1)

    def loss_change(self, rows, x, y):
        """Return how the losses of some queries change without rows, `(M,)`."""
        places = np.arange(len(x)), y
        return self.log_p(self.theta, x)[places] - self.log_p(self.without(rows), x)[places]

    def logit_change(self, rows, x, y):
        """Return how the log-odds of their labels change, `(M,)`."""
        p, q = (
            np.exp(self.log_p(theta, x)[np.arange(len(x)), y]) for theta in (self.theta, self.without(rows))
        )
        return np.log(q / (1 - q)) - np.log(p / (1 - p))

    def prediction(self, x, rows=()):
        return self.log_p(self.without(rows) if len(rows) else self.theta, x).argmax(1)


class SigmoidRefits:
    """Refits of one sigmoid head."""

    def __init__(self, x, y, weight_decay):
        self.x, self.y, self.weight_decay = x, y, weight_decay
        self.theta = sigmoid_probe.fit(x, y, weight_decay)

    def loss_change(self, rows, x, y):
        keep = np.setdiff1d(np.arange(len(self.x)), rows)
        after = sigmoid_probe.fit(self.x[keep], self.y[keep], self.weight_decay)
        before, now = (np.log(expit(np.where(y == 1, 1, -1) * (x @ theta))) for theta in (self.theta, after))
        return before - now


class RidgeRefits:
    """Refits of a ridge regression; x holds the intercept column if there is one. Shapes: y `(N, T)`."""

    def __init__(self, x, y, weight_decay, noise):
        self.x, self.y, self.weight_decay, self.noise = x, y, weight_decay, noise
        self.theta = ridge.fit(x, y, weight_decay)

    def without(self, rows):
        """Return the weights `(T, D)` without the rows at some positions."""
        keep = np.setdiff1d(np.arange(len(self.x)), rows)
        return ridge.fit(self.x[keep], self.y[keep], self.weight_decay)

    def loss(self, theta, x, y):
        """Return the loss of each query, nats, `(M,)`."""
        return 0.5 * ((y - x @ theta.T) ** 2 @ self.noise)

    def loss_change(self, rows, x, y):
        """Return how the losses of some queries change without rows, `(M,)`."""
        return self.loss(self.without(rows), x, y) - self.loss(self.theta, x, y)

    def prediction_change(self, rows, x):
        """Return how the predictions of some queries change without rows, `(M, T)`."""
        return x @ (self.without(rows) - self.theta).T

    def joined(self, x, y, prior_precision, structure):
        """Return mean and covariance term of the LSI that a row `(D,)` has once it belongs to the data."""
        rows, targets = np.vstack([self.x, x]), np.vstack([self.y, y])
        noise, last = self.noise, len(self.x)
        return ridge.terms(rows, targets, self.weight_decay, noise, prior_precision, structure, last)
