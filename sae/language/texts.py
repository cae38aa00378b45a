"""Texts to feed a language model: documents from a file, a list, or the grammar of the tales."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from sae.errors import SAEError, shorten
from zoo.common.reading import read_text

MAX_BYTES = 1 << 31
"""Largest text file that is read: 2 GB."""
SEPARATOR = "<|endoftext|>"
_TALES = re.compile(r"tales:(\d{1,9})(?:@(\d{1,9}))?")


@dataclass(frozen=True, eq=False)
class Texts(Sequence[str]):
    """Documents, in order.

    Attributes:
        documents: the texts.
        name: where they come from, for people.
        digest: SHA-256 of the documents.
    """

    documents: tuple[str, ...]
    name: str = "texts"
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        total = hashlib.sha256()
        for document in self.documents:
            encoded = document.encode("utf-8", "surrogatepass")
            total.update(f"{len(encoded)}\0".encode() + encoded)
        object.__setattr__(self, "digest", total.hexdigest())

    def __len__(self) -> int:
        return len(self.documents)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        return Texts(self.documents[index], self.name) if isinstance(index, slice) else self.documents[index]

    def subset(self, indices: Sequence[int]) -> Texts:
        """Some of the documents, in the order of `indices`."""
        return Texts(tuple(self.documents[i] for i in indices), f"{len(indices)} of {self.name}")


def open_texts(source: Any) -> Texts:
    """Documents from any of the forms below.

    Args:
        source: a list of strings, `Texts`, `tales:500` or `tales:500@7` (stories of the grammar, with a seed), or
            the path of a text file (see `read_texts`). A single text is given as a list of one.

    Raises:
        SAEError: none of these, no text, or one that is empty.

    >>> len(open_texts("tales:3@1"))
    3
    """
    if isinstance(source, Texts):
        return source
    if isinstance(source, str) and (match := _TALES.fullmatch(source)):
        from zoo import tales

        stories = tales.sample(int(match[1]), int(match[2] or 0))
        return Texts(tuple(story.text for story in stories), source)
    if isinstance(source, str | os.PathLike):
        if isinstance(source, str) and not os.path.exists(source):
            raise SAEError(
                f"no text file at {shorten(source)!r}; texts are a list of strings, a file, or tales:500@SEED"
            )
        return read_texts(source)
    if not isinstance(source, Sequence):
        raise SAEError(f"texts are a list of strings or the path of a file; got {type(source).__name__}")
    wrong = next((i for i, text in enumerate(source) if not isinstance(text, str)), None)
    if wrong is not None:
        raise SAEError(f"texts are strings; number {wrong} is a {type(source[wrong]).__name__}")
    if not source:
        raise SAEError("no texts were given: the list is empty")
    empty = [i for i, text in enumerate(source) if not text.strip()]
    if empty:
        raise SAEError(f"{len(empty)} of {len(source)} texts are empty, the first is number {empty[0]}")
    return Texts(tuple(source))


def read_texts(path: str | os.PathLike[str], *, separator: str = SEPARATOR) -> Texts:
    """The documents of a text file in UTF-8, `<|endoftext|>` between them; space around a document is dropped.

    A file without separators is one document.

    Raises:
        SAEError: no such file, not UTF-8 (it says where), or an empty file.

    >>> read_texts("stories.txt")[0]  # doctest: +SKIP
    'Once upon a time'
    """
    file = Path(path).expanduser()
    try:
        text = read_text(file, most=MAX_BYTES)
    except UnicodeDecodeError as error:
        raise SAEError(
            f"{file} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}. "
            f"Convert it, for example with `iconv -f latin1 -t utf-8`"
        ) from error
    except (OSError, ValueError) as error:
        raise SAEError(f"cannot read {shorten(file, 200)}: {getattr(error, 'strerror', None) or error}") from error
    documents = tuple(part.strip() for part in text.removeprefix("\ufeff").split(separator) if part.strip())
    if not documents:
        raise SAEError(f"{file} has no text in it")
    return Texts(documents, file.name)
