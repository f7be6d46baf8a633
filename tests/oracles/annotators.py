"""Posterior and noise matrices of annotators by loops over samples, classes and annotators."""

import numpy as np


def posterior(p, shared, matrices, answers):
    """Return `P(z | labels)` by summing over every seen class; `answers[i]` maps annotator to code."""
    c = p.shape[1]
    out = np.zeros_like(p)
    for i, given in enumerate(answers):
        for z in range(c):
            for w in range(c):
                chance = p[i, z] * shared[z, w]
                for a, y in given.items():
                    chance *= matrices[a][w, y]
                out[i, z] += chance
        out[i] /= out[i].sum()
    return out


def counts(q, answers, n_annotators):
    """Return expected numbers of each label (columns) for each class (rows), `(A, C, C)`."""
    c = q.shape[1]
    out = np.zeros((n_annotators, c, c))
    for i, given in enumerate(answers):
        for a, y in given.items():
            for z in range(c):
                out[a, z, y] += q[i, z]
    return out


def information(q, matrix):
    """Return the mutual information of the class and one label, from the joint distribution, `(n,)`."""
    joint = q[:, :, None] * matrix[None]
    alone = joint.sum(1, keepdims=True) * joint.sum(2, keepdims=True)
    return (joint * np.log(joint / alone)).sum((1, 2))
