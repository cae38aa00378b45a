"""A text as a network: its scores are the model's, its graph adds up, and nodes are silenced as hooks silence them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers", reason="needs the extra lm")

import circuits
import sae
from circuits.errors import CircuitsError
from sae.language import LanguagePair, LanguageSite, load_language, text_network

TEXT = "One day Max came to the red bridge of Fogport. The cables moved under the"
LAYERS = ["layers.1.resid", "layers.2.resid"]
RIVALS = ("Longspan", "Oldspan")


@pytest.fixture(scope="module")
def lm() -> Any:
    return load_language("tales")


def scores(lm: Any, edit: Any = None) -> Tensor:
    """Of the token after the text, by the model itself; `edit` changes what block 2 gives, special tokens included."""
    ids = torch.tensor([[*lm.prefix, *lm.ids(TEXT)]])
    handle = None if edit is None else lm.module.model.layers[2].register_forward_hook(edit)
    try:
        with torch.no_grad():
            return lm.module(ids).logits[0, -1].clone()
    finally:
        if handle is not None:
            handle.remove()


def test_the_evidence_of_the_landmarks_name_gives_it(lm: Any) -> None:
    model, tokens = text_network(lm, TEXT)
    ids = lm.ids(TEXT)
    own = scores(lm)
    given = circuits.capture(model, tokens, "scores")["scores"].flatten()
    torch.testing.assert_close(given, own, atol=1e-4, rtol=0)
    graph = circuits.graph(model, tokens, RIVALS, layers=LAYERS, positions=True, patches=len(ids))
    words = [lm.decode([i]) for i in ids]
    name, rival = (own[lm.ids(word)[0]] for word in RIVALS)
    assert graph.nodes[-1].value == pytest.approx(float(name - rival), abs=1e-4) and graph.unexplained < 1e-5
    values = [node.value for node in graph.nodes if node.kind == "input"]
    assert len(values) == len(ids)
    evidence = {i for i, word in enumerate(words) if word in ("red", "bridge", "Fogport")}
    elsewhere = [v for i, v in enumerate(values) if i not in evidence and i < len(ids) - 2]
    # the other one is the grey bridge of Fogport; the last two words say that a place is due
    assert values[words.index("red")] > max(elsewhere)
    assert sum(values[i] for i in evidence) > sum(map(abs, elsewhere)) / 2
    assert sum(values) + sum(n.bias for n in graph.nodes) == pytest.approx(float(name - rival), abs=1e-3)

    unit = next(n.unit for n in graph.strongest() if n.layer == "layers.2.resid")
    channel, _, at = unit.rpartition(":")[2].partition("@0,")

    def silence(_module: Any, _inputs: Any, out: Any) -> Any:
        acts = (out[0] if isinstance(out, tuple) else out).clone()
        acts[:, len(lm.prefix) + int(at), int(channel)] = 0
        return (acts, *out[1:]) if isinstance(out, tuple) else acts

    effect = circuits.node_effect(model, graph, unit, images=tokens, random=1)
    first, second = ((scores(lm, silence) - own)[lm.ids(word)[0]] for word in RIVALS)
    assert effect.measured == pytest.approx(float(first - second), abs=1e-4)
    check = circuits.check_graph(model, graph, images=tokens, n=6)
    assert check.correlation > check.shuffled and effect.predicted == pytest.approx(-graph.node(unit).value)


def test_latents_at_tokens_are_its_units(lm: Any) -> None:
    site = LanguageSite(lm, "layers.2.resid")
    torch.manual_seed(0)
    model, tokens = text_network(lm, TEXT, {"d": (sae.build(sae.TopK(latents=96, k=8), 64), site)})
    graph = circuits.graph(model, tokens, "Longspan", positions=True, width=8)
    assert graph.layers == ("layers.2.resid~d",) and graph.completeness < 1 and graph.unexplained < 1e-5
    assert all("layers.2.resid~d:" in n.unit and "@0," in n.unit for n in graph.strongest())
    pair = LanguagePair(lm, "layers.1.mlp_in", "layers.1.mlp")
    mlp = sae.build(sae.TopK(latents=96, k=8, kind="skip-transcoder"), *pair.widths)
    model, tokens = text_network(lm, TEXT, {"mlp": (mlp, pair)})
    graph = circuits.graph(model, tokens, "Longspan", layers=["layers.0.resid"], dictionaries="mlp", positions=True)
    assert graph.layers == ("layers.0.resid", "layers.1.mlp_in..layers.1.mlp~mlp") and graph.unexplained < 1e-5
    strong = next(n.unit for n in graph.strongest() if "~mlp" in n.unit)
    effect = circuits.node_effect(model, graph, strong, images=tokens, random=0)
    assert effect.predicted == pytest.approx(-graph.node(strong).value) and effect.measured != 0


def test_what_has_no_next_token_is_refused(lm: Any) -> None:
    with pytest.raises(CircuitsError, match="empty"):
        text_network(lm, "")
    with pytest.raises(CircuitsError, match="asked for token 99"):
        text_network(lm, TEXT, token=99)
    with pytest.raises(CircuitsError, match="no class"):
        circuits.graph(*text_network(lm, TEXT), "nowhere", layers=LAYERS)
