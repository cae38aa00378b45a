"""A language model on one text as a network of sequences, so that graphs, checks and circuits are those of images."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from circuits.errors import AddressError
from circuits.network.hooks import hooked
from circuits.network.layers.windows import Window
from circuits.network.model import Model, wrap
from sae.architectures.base import SAE
from sae.data.site import check_fits
from sae.errors import SAEError
from sae.language.chunking import chunks
from sae.language.hook_points import mlp_path, site_paths
from sae.language.pair import LanguagePair
from sae.language.site import LanguageSite, tensor_of
from zoo.inputs import InputSpec
from zoo.networks.language import LanguageModel


class _Sites(nn.Module):
    """The sites of one block, through which their activations pass."""

    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        for kind in kinds:
            self.add_module(kind, nn.Identity())


class TextNetwork(nn.Module):
    """Embeddings of the tokens of a text `(N, channels, tokens)` to the scores of the token after one of them.

    Its layers are the sites of the model, `layers.2.resid`, at the tokens of the text: special tokens are fed as they
    are, and belong to no layer. So are what some MLPs read, `layers.2.mlp_in`.
    """

    def __init__(
        self, lm: LanguageModel, count: int, before: list[int], after: list[int], token: int, read: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.lm = lm.module
        paths = site_paths(lm)
        blocks = range(1 + max(int(site.split(".")[1]) for site in paths))
        kinds = [[site.rpartition(".")[2] for site in (*read, *paths) if site.split(".")[1] == str(n)] for n in blocks]
        self.layers = nn.ModuleList([_Sites(names) for names in kinds])
        self.scores = nn.Identity()
        self._paths, self._inputs, self._count, self._first, self._token = paths, dict(read), count, len(before), token
        module: Any = lm.module
        embedding = module.get_input_embeddings()
        around = [embedding(torch.tensor([ids], dtype=torch.long, device=lm.device)) for ids in (before, after)]
        self._around: list[Tensor] = [part.detach() for part in around]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, vocabulary)`."""
        before, after = (part.to(x).expand(len(x), -1, -1) for part in self._around)
        with ExitStack() as stack:
            for site, path in self._paths.items():
                stack.enter_context(hooked(self.lm.get_submodule(path), self._through(site)))
            for site, path in self._inputs.items():
                stack.enter_context(hooked(self.lm.get_submodule(path), self._into(site), before=True))
            embedded = torch.cat([before, x.transpose(1, 2), after], dim=1)
            logits: Tensor = self.lm(inputs_embeds=embedded, use_cache=False).logits
        scores: Tensor = self.scores(logits[:, self._first + self._token])
        return scores

    def _passed(self, site: str, acts: Tensor) -> Tensor:
        first, last = self._first, self._first + self._count
        part = self.get_submodule(site)
        return torch.cat([acts[:, :first], part(acts[:, first:last]), acts[:, last:]], dim=1)

    def _through(self, site: str) -> Any:
        def function(_module: nn.Module, _inputs: Any, out: Any) -> Any:
            new = self._passed(site, tensor_of(out, site))
            return (new, *out[1:]) if isinstance(out, tuple) else new

        return function

    def _into(self, site: str) -> Any:
        def function(_module: nn.Module, inputs: Any) -> Any:
            return (self._passed(site, inputs[0]), *inputs[1:])

        return function


def text_network(
    lm: LanguageModel,
    text: str,
    saes: Mapping[str, tuple[SAE, LanguageSite]] | None = None,
    *,
    token: int = -1,
) -> tuple[Model, Tensor]:
    """A language model on one text as a `circuits.Model`, whose image is the text: `circuits.graph(*..., "Fogport")`.

    Layers are the sites of the model, with a position for each token of the text; special tokens are fed, and belong to
    no layer. Classes are the words of the vocabulary, and their scores those of the token after `token`. Everything
    that takes a model and images takes these two: `graph(..., positions=True)`, `check_graph`, `node_effect`.

    Args:
        lm: a model of `load_language`; text: one text, no longer than its context.
        saes: name -> SAE and its site; their latents are units, `layers.2.resid~name:17@0,5` at token 5. A transcoder
            of a `LanguagePair` stands in for what is between, `layers.2.mlp_in..layers.2.mlp~name:17@0,5`.
        token: after which the scores are read; negative ones count from the end.

    Returns:
        The model, and the text as its only image `(1, channels, tokens)`, to be given as `images`.

    Raises:
        SAEError: a text that is empty or too long, a model without scores, or an SAE of another site.
        AddressError: a token out of range.

    >>> model, tokens = text_network(load_language("tales"), "The owl sat on the red bridge of")  # doctest: +SKIP
    >>> circuits.graph(model, tokens, "Fogport", layers=["layers.2.resid"])  # doctest: +SKIP
    """
    if not lm.has_head:
        raise SAEError(f"{lm.name} gives hidden states and no scores: nothing is predicted")
    site = next(iter(site_paths(lm)))
    own = LanguageSite(lm, site)
    pieces = list(chunks(lm, own.open([text]), own.feeding))
    if len(pieces) != 1:
        raise SAEError(f"one text of 1 to {own.feeding.room} tokens; this one has {len(lm.ids(text))}")
    piece = pieces[0]
    first, count = piece.text.start, piece.count
    if not -count <= token < count:
        raise AddressError(f"the text has {count} tokens (0 to {count - 1}); asked for token {token}")
    ids = list(piece.ids)
    before, after = ids[:first], ids[first + count :]
    module: Any = lm.module
    embedding = module.get_input_embeddings()
    embedded = embedding(torch.tensor([ids[first : first + count]], device=lm.device)).detach().float().transpose(1, 2)
    reach = float(embedded.abs().max()) * (1 + 1e-6)
    pairs = [of for _, of in (saes or {}).values() if isinstance(of, LanguagePair)]
    read = {pair.source: mlp_path(lm, pair.source[:-7]) for pair in pairs if pair.source.endswith(".mlp_in")}
    network = TextNetwork(lm, count, before, after, token % count, read)
    words = [lm.decode([i]).strip() or f"<{i}>" for i in range(int(lm.config.vocab_size))]
    spec = InputSpec(size=(count,), channels=embedded.shape[1], range=(-reach, reach))
    axes = {**dict.fromkeys((*site_paths(lm), *read), "n (h w) c"), "scores": "n c"}
    model = wrap(network, input=spec, name=lm.name, classes=words, axes=axes)
    for name, (sae, of) in (saes or {}).items():
        check_fits(sae, of)
        if of.lm is not lm:
            raise SAEError(f"the SAE {name} is of {of.address}, the text of {lm.name}")
        if isinstance(of, LanguagePair):
            layers = model.layers[of.source], model.layers[of.target]
            model.layers.add_windows(of.site, *layers, Window((1, 1), (1, 1), (0, 0), layers[1].size or (1, 1)))
        model.attach(of.site, name, sae)
    return model, ((embedded + reach) / (2 * reach)).cpu()
