"""Embeds texts, and compares the vectors of items with that of a query. Needs the extra ``vectors``."""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from langgraph.store.base import IndexConfig, PutOp
from langgraph.store.base.embed import ensure_embeddings, get_text_at_path, tokenize_path
from numpy.typing import NDArray

from kvworker.errors import InvalidRequestError

Vector: TypeAlias = NDArray[np.float32]

_WHOLE: Final = "$"


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of the texts to store, and of the queries."""

    texts: Mapping[str, Vector] = field(default_factory=dict)
    queries: Mapping[str, Vector] = field(default_factory=dict)

    def of_texts(self, texts: Iterable[str]) -> list[str]:
        """Return the vectors of some texts in their stored form."""
        return [encode_vector(self.texts[text]) for text in texts]


class Index:
    """Embeds texts as a store's ``index=`` configures, and chooses those of an item.

    Raises:
        InvalidRequestError: The configuration has no number of dimensions, or the embedding function does not keep to
            it.
    """

    def __init__(self, config: IndexConfig) -> None:
        dims: object = config.get("dims")
        if isinstance(dims, bool) or not isinstance(dims, int) or dims < 1:
            raise InvalidRequestError('index["dims"] must be the number of dimensions of the vectors, such as 1536')
        self._dims = dims
        self.embeddings = ensure_embeddings(config.get("embed"))
        self._fields = _tokenized(config.get("fields") or [_WHOLE])

    def texts_of(self, op: PutOp) -> list[str]:
        """Return the texts of an item that its vectors stand for."""
        if op.value is None or op.index is False:
            return []
        fields = self._fields if op.index is None else _tokenized(op.index)
        return [text for path in fields for text in get_text_at_path(op.value, path)]

    def embed(self, texts: Sequence[str], queries: Sequence[str]) -> Embedded:
        """Embed texts, in one call, and queries."""
        vectors = self.embeddings.embed_documents(list(texts)) if texts else []
        found = [self.embeddings.embed_query(query) for query in queries]
        return self._checked(texts, vectors, queries, found)

    async def aembed(self, texts: Sequence[str], queries: Sequence[str]) -> Embedded:
        """Embed texts, in one call, and queries."""
        vectors = await self.embeddings.aembed_documents(list(texts)) if texts else []
        found = await asyncio.gather(*(self.embeddings.aembed_query(query) for query in queries))
        return self._checked(texts, vectors, queries, found)

    def _checked(
        self, texts: Sequence[str], vectors: Sequence[Any], queries: Sequence[str], found: Sequence[Any]
    ) -> Embedded:
        if len(vectors) != len(texts):
            raise InvalidRequestError(f"the embedding function made {len(vectors)} vectors of {len(texts)} texts")
        return Embedded(
            {text: self._vector(vector) for text, vector in zip(texts, vectors, strict=True)},
            {query: self._vector(vector) for query, vector in zip(queries, found, strict=True)},
        )

    def _vector(self, numbers: Any) -> Vector:
        vector = np.asarray(numbers, dtype=np.float32)
        if vector.shape != (self._dims,):
            raise InvalidRequestError(
                f"the embedding function made a vector of the shape {vector.shape}, but"
                f' index["dims"] is {self._dims}: they must agree'
            )
        if not np.isfinite(vector).all():
            raise InvalidRequestError("the embedding function made a vector with NaN or Infinity")
        return vector


def encode_vector(vector: Vector) -> str:
    """Return a vector's stored form: its 32-bit numbers, little-endian, in base64."""
    return b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def scores(query: Vector, stored: Sequence[Sequence[str]]) -> list[float | None]:
    """Return for each item the cosine of the query and the item's nearest vector, or None for one without vectors.

    Raises:
        InvalidRequestError: A stored vector has another number of dimensions, or is none.
    """
    best: list[float | None] = [None] * len(stored)
    owners = [index for index, vectors in enumerate(stored) for _ in vectors]
    if not owners:
        return best
    matrix = np.stack([_decode(text, len(query)) for vectors in stored for text in vectors]).astype(np.float64)
    wanted = query.astype(np.float64)
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(wanted)
    cosines = np.divide(matrix @ wanted, norms, out=np.zeros(len(matrix)), where=norms != 0)
    for owner, cosine in zip(owners, cosines.tolist(), strict=True):
        nearest = best[owner]
        best[owner] = cosine if nearest is None else max(nearest, cosine)
    return best


def _decode(text: str, dims: int) -> Vector:
    try:
        vector = np.frombuffer(b64decode(text, validate=True), dtype="<f4")
    except (TypeError, ValueError, binascii.Error):
        vector = np.empty(0, dtype=np.float32)
    if len(vector) != dims:
        raise InvalidRequestError(
            f"an item has a vector of {len(vector)} dimensions, but the query's has {dims}: put the items again"
            " after a change of the embedding function"
        )
    return vector


def _tokenized(fields: Iterable[str]) -> list[str | list[str]]:
    return [path if path == _WHOLE else tokenize_path(path) for path in fields]
