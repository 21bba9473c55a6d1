"""The linear probe's logits are those of scikit-learn's model, with two classes as with more."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from milkit.statistics.linear_probe import fit_linear_probe, linear_probe


@pytest.mark.parametrize("classes", [(0, 1), (1, 4, 5)])
def test_logits_give_the_probabilities_of_the_fitted_model(classes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    labels = np.array(classes)[generator.integers(0, len(classes), size=90)]
    features = generator.normal(size=(90, 6)) + labels[:, None] * np.array([0.5, 0, 0, -0.5, 0, 0])
    model = LogisticRegression(C=6 * len(classes) / 100, max_iter=1000).fit(features, labels)
    probe = fit_linear_probe(features, labels)
    raised = np.exp(probe.logits(features[:20]))
    assert probe.classes.tolist() == list(classes)
    np.testing.assert_allclose(
        raised / raised.sum(axis=1, keepdims=True), model.predict_proba(features[:20]), atol=1e-9
    )
    assert (linear_probe(features, labels, features[:20]).predicted == model.predict(features[:20])).all()
