"""The last layer trained anew on balanced images: the plain baseline of a repair.

With groups it is the deep feature reweighting of Kirichenko et al. 2023 (arXiv 2204.02937): a logistic regression on
the features below the class scores, every class and group with the same weight in all. Theirs is trained on images
that the network was not trained on, half of which are of the rare groups; here they are the user's, so a group of few
images has large weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.dataset.audit.repair.choice import Labeled, State, cell_weights
from circuits.dataset.audit.repair.result import Outcome, outcome
from circuits.network.hooks import graph_edits
from circuits.network.model import Model
from zoo.images.sources import Images

FEWEST = 10
"""Images of a class below which its row of the last layer is not trained anew."""
NEVER = -1e4
"""Score of a class without images to train on: its probability is nothing."""


def retrained(
    model: Model, fitting: Labeled, judging: Labeled, classes: Sequence[str], batch_size: int
) -> tuple[Outcome | None, str, State]:
    """The outcome on the images to judge on, and how the layer was trained; None and why not where that cannot be.

    Active edits are active in the features, too. Third come the entries of the network's state that hold the layer, for
    `circuits.export`; none where it has no weight and bias of its own.
    """
    images, labels, groups = fitting
    if len(np.unique(labels)) < 2:
        return None, f"not trained: all images to train on are of {classes[labels[0]]}", {}
    few = [classes[c] for c in np.unique(judging[1]) if (labels == c).sum() < FEWEST]
    if few:
        return None, f"not trained: fewer than {FEWEST} images of {few[0]} to train on", {}
    features = _features(model, images, batch_size)
    if features is None:
        return None, f"not trained: {model.logits} is not known to be one linear layer", {}
    from sklearn.linear_model import LogisticRegression

    judged = _features(model, judging[0], batch_size)
    assert judged is not None
    mean, spread = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    weights, smallest = cell_weights(labels, groups)
    layer = LogisticRegression(max_iter=1000).fit(((features - mean) / spread).numpy(), labels, sample_weight=weights)
    probabilities = np.zeros((len(judged), len(classes)))
    probabilities[:, layer.classes_] = layer.predict_proba(((judged - mean) / spread).numpy())
    rows, bias = layer.coef_, layer.intercept_
    if len(rows) == 1:  # of two classes there is one row: how much higher the score of the second is
        rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
    weight = np.zeros((len(classes), rows.shape[1]))
    weight[layer.classes_] = rows / spread.numpy()
    constants = np.full(len(classes), NEVER)
    constants[layer.classes_] = bias - weight[layer.classes_] @ mean.numpy()
    balanced = "classes" if groups is None else "classes and groups"
    how = (
        f"logistic regression on the {features.shape[1]} features below {model.logits}, {len(labels)} images balanced "
        f"over {balanced}, {smallest} in the smallest"
    )
    state = _state(model, weight, constants)
    return outcome(probabilities, judging[1], judging[2], classes), how, state


def _state(model: Model, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> State:
    """The entries of the state of the layer of class scores, where it is a module with a weight and a bias."""
    state = model.module.state_dict()
    names = {f"{model.node(model.logits).target}.{which}": of for which, of in (("weight", weight), ("bias", bias))}
    if any(name not in state or state[name].shape != of.shape for name, of in names.items()):
        return {}
    return {name: torch.from_numpy(of).to(state[name]) for name, of in names.items()}


def _features(model: Model, images: Images, batch_size: int) -> Tensor | None:
    """What the linear layer of class scores reads, `(N, features)`; None where it is another operation."""
    if model.graph is None:
        return None
    op = model.graph.ops[model.node(model.logits)]
    if op.kind != "linear" or len(op.inputs) != 1:
        return None
    below, parts = op.inputs[0], []
    with torch.no_grad(), model.lock:
        for _, batch in images.batches(model.input, batch_size=batch_size):
            x = model.input.normalize(batch).to(model.device, model.dtype)
            values = model.graph.run({model.graph.input: x}, [below], edits=graph_edits(model))
            parts.append(values[below].double().cpu())
    features = torch.cat(parts)
    return features if features.ndim == 2 else None
