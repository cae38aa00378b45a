"""Addresses in a language model: `hf:PATH/layers.2.resid~sae:17@5`, a latent at a token."""

from __future__ import annotations

import re
from dataclasses import dataclass

from circuits.errors import AddressError, shorten
from circuits.network.address import Unit

_TOKEN = re.compile(r"@(?:(\d{1,9}),)?(\d{1,9})$", re.ASCII)
_GRAMMAR = "[model/]layers.N.resid[~basis][:index][@token] or @document,token"


@dataclass(frozen=True)
class TextUnit:
    """A channel or a latent in a language model, at one token or at all.

    Attributes:
        unit: the address without the token.
        token: index in the text, from 0, special tokens left out; None for all.
        document: index of the text among several; None where there is one.

    >>> TextUnit.parse("tales/layers.2.resid~sae:17@5").token
    5
    """

    unit: Unit
    token: int | None = None
    document: int | None = None

    @classmethod
    def parse(cls, text: str) -> TextUnit:
        """Read an address.

        Raises:
            AddressError: it does not have the form.
        """
        if not isinstance(text, str):
            raise AddressError(f"an address is a string {_GRAMMAR}; got {type(text).__name__}")
        position = _TOKEN.search(text)
        rest = text[: position.start()] if position else text
        try:
            unit = Unit.parse(rest)
        except AddressError as error:
            raise AddressError(f"cannot read the address {shorten(text)!r}; the form is {_GRAMMAR}") from error
        if unit.at is not None or (position and unit.index is None):
            raise AddressError(f"cannot read the address {shorten(text)!r}: a token needs a unit, {_GRAMMAR}")
        if position is None:
            return cls(unit)
        return cls(unit, int(position[2]), int(position[1]) if position[1] else None)

    def __str__(self) -> str:
        if self.token is None:
            return str(self.unit)
        return f"{self.unit}@{self.token if self.document is None else f'{self.document},{self.token}'}"
