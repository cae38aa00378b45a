"""A site in a transformer, where an SAE reads activations and may replace them: every token of a text is a vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from circuits.errors import AddressError, CaptureError
from circuits.network.hooks import Stop, hooked
from sae.data.activations import SiteStream
from sae.data.site import Block, Function
from sae.errors import SAEError, did_you_mean, shorten
from sae.language import loss as prediction
from sae.language.addresses import TextUnit
from sae.language.chunking import Chunk, Feeding, Long, Padded, batched, chunks, padded
from sae.language.generation import Continuation, continued
from sae.language.hook_points import KINDS, check_halves, site_paths, why_without_halves
from sae.language.loss import TextLoss
from sae.language.texts import Texts, open_texts
from zoo.networks.language import Feed, LanguageModel
from zoo.progress import Progress, reporter


class LanguageSite:
    """A site in a language model as vectors `(N, d)`: one for each token of each text.

    Special tokens (`<s>`, `[CLS]`) are fed as the tokenizer adds them, but are neither captured nor replaced: they
    belong to no text, and their activations are often a hundred times as long as those of other tokens. The same holds
    for padding. A text that is longer than the context is cut; every piece begins with the special tokens and does not
    see the piece before.

    Args:
        lm: a model of `zoo.networks.language.load_language`.
        site: `layers.N.resid`, `layers.N.attn` or `layers.N.mlp`; see `sae.language.site_paths`.
        bos: True feeds the tokenizer's beginning-of-text token in front even where the tokenizer does not (GPT-2);
            False never does (default: as the tokenizer does).
        context: tokens fed at once, special tokens included (default: the context of the model).
        long: for longer texts, "cut" or "refuse".

    Attributes:
        feeding: how texts are fed.

    Raises:
        SAEError: no such site (the message lists the sites), or a context out of range.

    >>> site = LanguageSite(load_language("tales"), "layers.2.resid")  # doctest: +SKIP
    >>> next(site.blocks(["She was happy."])).acts.shape  # doctest: +SKIP
    torch.Size([1, 4, 64])
    """

    axes = ("document", "token")

    def __init__(
        self,
        lm: LanguageModel,
        site: str,
        *,
        bos: bool | None = None,
        context: int | None = None,
        long: Long = "cut",
    ) -> None:
        if not isinstance(lm, LanguageModel):
            raise SAEError(f"LanguageSite takes a model of load_language; got {type(lm).__name__}")
        paths = site_paths(lm)
        if site not in paths and site in {f"{name.rpartition('.')[0]}.{kind}" for name in paths for kind in KINDS}:
            raise SAEError(
                f"{lm.name} has no site {site!r}: {why_without_halves(lm)}. Its residual stream is a site: "
                f"{site.rpartition('.')[0]}.resid"
            )
        if site not in paths:
            kinds = sorted({name.rpartition(".")[2] for name in paths})
            count = len({name.rpartition(".")[0] for name in paths})
            raise SAEError(
                f"{lm.name} has no site {shorten(site)!r}.{did_you_mean(str(site), paths)} "
                f"There are layers.N.{{{','.join(kinds)}}} with N from 0 to {count - 1}"
            )
        self.lm, self.site = lm, site
        self.path = paths[site]
        if not site.endswith(".resid"):
            check_halves(lm, int(site.split(".")[1]))
        self.feeding = _feeding(lm, bos, context, long)

    def __repr__(self) -> str:
        return f"LanguageSite({self.address!r}, d={self.d})"

    # -- identity ------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """`model/layers.N.resid`."""
        return f"{self.lm.name}/{self.site}"

    @property
    def d(self) -> int:
        """Channels of the residual stream, of which all three kinds of sites are vectors."""
        return self.lm.width

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of an SAE trained here, ready for JSON; it includes the keys of SAELens."""
        return {
            "model_name": self.lm.name,
            "hook_name": self.site,
            "model": self.lm.name,
            "layer": self.site,
            "weights_digest": self.lm.digest,
            "site": "language",
            "module": self.path,
            "context_size": self.feeding.context,
            "prepend_bos": self.lm.tokenizer.bos_token_id in self.feeding.prefix,
            "special_tokens": [list(self.feeding.prefix), list(self.feeding.suffix)],
        }

    @property
    def position(self) -> int:
        """Inside a replaced function: index in the sequence, special tokens counted, of its first token.

        Above zero while a text is generated with a cache, where the function receives one new token at a time.

        Raises:
            SAEError: nothing is running.
        """
        return self._feed().start

    @property
    def mask(self) -> Tensor | None:
        """Inside a replaced function: `(N, tokens)`, False at special tokens and padding; None when all is text.

        The function's values at the others are not used.

        Raises:
            SAEError: nothing is running.
        """
        return self._feed().mask

    def _feed(self) -> Feed:
        if self.lm.feed is None:
            raise SAEError(
                "position and mask are of a running model: read them inside the function given to replaced()"
            )
        return self.lm.feed

    def unit(self, address: str | TextUnit, latents: int | None = None) -> TextUnit:
        """The full address of a channel or latent here: `layers.2.resid:5`, `layers.2.resid~sae:17@3`, `~sae:17@3`.

        Args:
            address: with or without model and site.
            latents: number of latents of the basis, to check the index.

        Raises:
            AddressError: it cannot be read, is of another model or site, or its index is out of range.
        """
        if isinstance(address, str) and address[:1] in ("~", ":"):
            address = f"{self.site}{address}"
        parsed = address if isinstance(address, TextUnit) else TextUnit.parse(address)
        unit = parsed.unit
        if unit.model not in (None, self.lm.name) or unit.layer != self.site:
            raise AddressError(f"{shorten(parsed)} is not of {self.address}")
        count, noun = (self.d, "channels") if unit.basis is None else (latents, "latents")
        if unit.index is not None and count is not None and unit.index >= count:
            raise AddressError(f"{self.address} has {count} {noun} (0 to {count - 1}); asked for {unit.index}")
        return replace(parsed, unit=replace(unit, model=self.lm.name))

    # -- reading --------------------------------------------------------------------------------------

    def open(self, texts: Any) -> Texts:
        """The texts, from any form that `sae.language.open_texts` takes."""
        return open_texts(texts)

    def blocks(self, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Iterator[Block]:
        """Activations `(texts, tokens, d)` batch by batch, in the order of the texts.

        A row is a text, however many pieces it was fed in; positions count the text's own tokens from 0.

        Args:
            inputs: texts: a list of strings, a file, `tales:500`, ...
            batch_size: pieces per forward pass.
            progress: True for a bar, or a function of (done, total) texts.

        Raises:
            SAEError: texts that cannot be read or fed. CaptureError: the site did not run.
        """
        texts = self.open(inputs)
        rows: list[Tensor] = []
        parts: list[Tensor] = []
        first = 0
        with reporter(progress, "texts") as report:
            for batch in batched(chunks(self.lm, texts, self.feeding), batch_size):
                for chunk, acts in zip(batch, self._read(batch), strict=True):
                    parts.append(acts)
                    if not chunk.last:
                        continue
                    row, parts = torch.cat(parts), []
                    # a text of many pieces would have its neighbors padded to its own length
                    if rows and (len(rows) == batch_size or max(len(row), len(rows[0])) > self.feeding.room):
                        yield _block(rows, first)
                        first, rows = first + len(rows), []
                    rows.append(row)
                report(batch[-1].document + batch[-1].last, len(texts))
            yield _block(rows, first)

    def _read(self, batch: list[Chunk]) -> list[Tensor]:
        """Activations `(tokens, d)` of each chunk, its special tokens left out; the pass ends at the site."""
        fed = padded(batch)
        captured: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, out: Any) -> None:
            captured.append(tensor_of(out, self.site))
            raise Stop

        with torch.no_grad(), self.lm.lock, hooked(self._module(), keep):
            try:
                self.run(fed)
            except Stop:
                acts = captured[0]
                return [acts[row, chunk.text] for row, chunk in enumerate(batch)]
        raise CaptureError(f"{self.address} did not run in this forward pass")

    def _module(self) -> nn.Module:
        return self.lm.module.get_submodule(self.path)

    def run(self, batch: Padded) -> Any:
        """One forward pass of a padded batch.

        A causal model is given no attention mask: padding on the right comes after all tokens that are used, and a mask
        could only select another kernel, and with it other rounding.
        """
        options: dict[str, Any] = {"use_cache": False} if self.lm.causal else {}
        if not self.lm.causal:
            options["attention_mask"] = batch.there.to(self.lm.device).long()
        return self.lm.run(batch.ids, feed=Feed(0, batch.text.to(self.lm.device)), **options)

    def stream(self, texts: Any, **settings: Any) -> SiteStream:
        """Training vectors from texts, shuffled and without end; for the settings see `SiteStream`."""
        return SiteStream(self, self.open(texts), **settings)

    # -- replacing ------------------------------------------------------------------------------------

    @contextmanager
    def replaced(self, function: Function) -> Iterator[None]:
        """While open, the model goes on from `function(acts)`, acts `(N, tokens, d)`, of the same shape.

        At special tokens and padding the activations stay as they are. Contexts nest, in the order in which they
        were opened; the model's lock is held, so that another thread waits instead of running with this edit. What
        is run through this class knows `position` and `mask`; a bare call of the module does not, and is replaced at
        all tokens.

        Raises:
            SAEError: while running, when the function gives no tensor of the same shape.
            CaptureError: the site did not run in a forward pass, or ran twice.
        """
        with self.lm.lock:
            once = _Once(self.site)
            with hooked(self._module(), self._edit(function, once)), hooked(self.lm.module, once.after):
                yield

    def _edit(self, function: Function, once: _Once) -> Callable[[nn.Module, Any, Any], Any]:
        def act(_module: nn.Module, _inputs: Any, out: Any) -> Any:
            feed = self.lm.feed
            once.runs(feed)
            acts = tensor_of(out, self.site)
            new = function(acts)
            if not isinstance(new, Tensor) or new.shape != acts.shape:
                got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
                raise SAEError(f"the activations here are {tuple(acts.shape)}; they were replaced by {got}")
            new = new.to(acts)
            if feed is not None and feed.mask is not None:
                new = torch.where(feed.mask[..., None], new, acts)
            return (new, *out[1:]) if isinstance(out, tuple) else new

        return act

    # -- predictions and generation -------------------------------------------------------------------

    def predictions(
        self, inputs: Any, ways: Sequence[Function | None], *, batch_size: int = 32, progress: Progress = None
    ) -> Iterator[tuple[list[Tensor], Tensor | None]]:
        """Scores `(n, vocabulary)` of tokens, once per variant, and the ids of these tokens.

        Of a causal model, for every token that has another before it; of a masked one, for 15 % of the tokens, the same
        ones every time, replaced by the mask token. See `sae.data.site.Site.predictions`.
        """
        for tokens, scores in self._predicted(self.open(inputs), ways, batch_size, progress):
            yield scores, tokens.right

    def _predicted(
        self, texts: Texts, ways: Sequence[Function | None], batch_size: int, progress: Progress
    ) -> Iterator[tuple[prediction.PredictedTokens, list[Tensor]]]:
        prediction.check_head(self.lm)
        size = prediction.fitting(self.lm, self.feeding.context, batch_size, len(ways))
        with reporter(progress, "texts") as report, torch.no_grad():
            for batch in batched(chunks(self.lm, texts, self.feeding), size):
                tokens = prediction.predicted_tokens(self.lm, batch)
                if len(tokens.right):
                    yield tokens, [self._scores(tokens, way) for way in ways]
                report(batch[-1].document + batch[-1].last, len(texts))

    def _scores(self, tokens: prediction.PredictedTokens, way: Function | None) -> Tensor:
        if way is None:
            return tokens.pick(self.run(tokens.batch).logits)
        with self.replaced(way):
            return tokens.pick(self.run(tokens.batch).logits)

    def loss(self, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> TextLoss:
        """Mean cross-entropy in nats per token of the texts, active replacements included.

        Special tokens are fed, but not counted. Of a causal model every token that has another before it is counted, of
        a masked one 15 % of the tokens (see `predictions`).

        Raises:
            SAEError: texts that cannot be read or fed, or a model without a head.

        >>> site.loss("tales:100@1").nats  # doctest: +SKIP
        0.63
        """
        texts = self.open(inputs)
        totals, counts = torch.zeros(len(texts), dtype=torch.float64), torch.zeros(len(texts), dtype=torch.long)
        for tokens, (scores,) in self._predicted(texts, [None], batch_size, progress):
            totals.index_add_(0, tokens.documents, prediction.cross_entropy(scores, tokens.right))
            counts.index_add_(0, tokens.documents, torch.ones_like(tokens.documents))
        return prediction.text_loss(totals, counts, texts)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 50,
        seed: int = 0,
        temperature: float = 1.0,
        cache: bool = True,
        progress: Progress = None,
    ) -> list[Continuation]:
        """Continue each prompt, with the replacements that are active.

        Args:
            prompts: texts; an empty one begins a new text. Every prompt has its own random numbers, from `seed` and its
                index in the list, so that ten copies of a prompt have ten continuations.
            max_new_tokens: upper limit; a text that the model ends itself is shorter.
            seed: of the samples.
            temperature: 0 always takes the likeliest token.
            cache: reuse keys and values of earlier tokens; without, they are recomputed for every token.
            progress: True for a bar, or a function of (done, total) tokens.

        Raises:
            SAEError: a masked model, no prompts, or more tokens than the model takes.

        >>> site.generate(["One day"], max_new_tokens=8)[0].whole  # doctest: +SKIP
        'One day Anna walked to the grey bridge of'
        """
        return continued(
            self.lm, self.feeding, prompts, max_new_tokens=max_new_tokens, seed=seed, temperature=temperature,
            cache=cache, progress=progress,
        )  # fmt: skip


class _Once:
    """Checks that a replaced site runs exactly once in every forward pass."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.ran = False
        self.feed: Feed | None = None

    def runs(self, feed: Feed | None) -> None:
        if feed is not None and feed is self.feed:
            raise CaptureError(f"{self.site} ran more than once in one forward pass")
        self.ran, self.feed = True, feed

    def after(self, _module: nn.Module, _inputs: Any, _out: Any) -> None:
        # runs only after a complete forward pass: one that stopped early need not reach the site
        if not self.ran:
            raise CaptureError(f"{self.site} is replaced, but did not run in this forward pass")
        self.ran = False


def tensor_of(out: Any, site: str) -> Tensor:
    """The activations in the output of a module: the output, or its first entry (attention returns its weights too)."""
    first = out[0] if isinstance(out, tuple) and out else out
    if not isinstance(first, Tensor) or first.ndim != 3:
        raise CaptureError(f"the output of {site} is a {type(first).__name__}, not activations (N, tokens, d)")
    return first


def _block(rows: list[Tensor], first: int) -> Block:
    length = max(len(row) for row in rows)
    if all(len(row) == length for row in rows):
        return Block(torch.stack(rows), first)
    mask = torch.tensor([[t < len(row) for t in range(length)] for row in rows], device=rows[0].device)
    return Block(nn.utils.rnn.pad_sequence(rows, batch_first=True), first, mask)


def _feeding(lm: LanguageModel, bos: bool | None, context: int | None, long: Long) -> Feeding:
    prefix, own = lm.prefix, lm.tokenizer.bos_token_id
    if bos is True and own not in prefix:
        if own is None:
            raise SAEError(f"bos=True: the tokenizer of {lm.name} has no token for the beginning of a text")
        prefix = (own, *prefix)
    elif bos is False:
        prefix = tuple(i for i in prefix if i != own)
    if long not in ("cut", "refuse"):
        raise SAEError(f"long={shorten(long)!r}: use 'cut' or 'refuse'")
    size = lm.context if context is None else context
    least = len(prefix) + len(lm.suffix) + 2
    if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= lm.context:
        raise SAEError(f"context={shorten(size)}: {lm.name} takes from {least} to {lm.context} tokens at once")
    return Feeding(prefix, lm.suffix, size, long)
