"""xDAWN covariances in the tangent space, with logistic regression: pyriemann's [Barachant2014]."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from neurocanvas.errors import require


class XdawnTangent(ClassifierMixin, BaseEstimator):
    """Covariances of xDAWN-filtered trials and class means, projected to the tangent space, and logistic regression."""

    def __init__(self, C: float = 1.0, nfilter: int = 4) -> None:
        self.C, self.nfilter = C, nfilter

    def fit(self, X: np.ndarray, y: np.ndarray) -> XdawnTangent:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        estimation = require("pyriemann.estimation", "the encoder xdawn", "riemann")
        tangentspace = require("pyriemann.tangentspace", "the encoder xdawn", "riemann")
        n_filters = min(self.nfilter, X.shape[1])
        self.pipeline_ = make_pipeline(
            estimation.XdawnCovariances(n_filters, estimator="oas"), tangentspace.TangentSpace(),
            LogisticRegression(C=self.C, max_iter=2000),
        ).fit(np.asarray(X, np.float64), y)  # fmt: skip
        self.classes_ = self.pipeline_.classes_
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.pipeline_.decision_function(np.asarray(X, np.float64)))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.pipeline_.predict_proba(np.asarray(X, np.float64)))

    def predict(self, X: np.ndarray) -> Any:
        return self.pipeline_.predict(np.asarray(X, np.float64))
