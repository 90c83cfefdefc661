"""How good features are: a linear probe and nearest neighbours, on frozen features."""

from __future__ import annotations

import numpy as np


def linear_probe(train, labels, test, test_labels, c=1.0):
    """Accuracy of multinomial logistic regression on standardised features.

    Parameters
    ----------
    train, test : ndarray (N, d)
    labels, test_labels : ndarray (N,) int
    c : float
        Inverse strength of the penalty.

    Returns
    -------
    float in [0, 1]
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300, tol=1e-3))
    return float(model.fit(train, labels).score(test, test_labels))


def knn_probe(train, labels, test, test_labels, k=20):
    """Accuracy of a majority vote of the ``k`` training images of largest cosine; ties to the lower class."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    return float(model.fit(train, labels).score(test, test_labels))


def wilson(accuracy, n, z=1.96):
    """95 % interval of an accuracy over ``n`` independent images (Wilson 1927)."""
    centre = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
    return centre - half, centre + half
