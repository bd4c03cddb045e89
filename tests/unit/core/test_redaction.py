"""Secrets do not leave the program, whatever text they stand in."""

from __future__ import annotations

import pickle
import traceback
from typing import Any

import pytest

from dynacor_ray.core.errors import DynacorError, StorageError, first_line
from dynacor_ray.core.redaction import redact, redact_all, redacted

CASES = {
    "http://alice:PW@host/d": "http://***@host/d",
    "https://TOKEN@host/": "https://***@host/",
    "redis://:PW@host": "redis://***@host",
    "s3://KEY:SECRET@b/x": "s3://***@b/x",
    "s3://KEY:SEC/RET@b/x": "s3://***@b/x",
    "http://user:12345@host/x": "http://***@host/x",
    "postgresql://u:p@ss@h/db": "postgresql://***@h/db",
    "postgresql://h/db?user=a&password=PW": "postgresql://h/db?user=a&password=***",
    "abfs://box:PW@acc.dfs.core.windows.net/x": "abfs://***@acc.dfs.core.windows.net/x",
    "https://h/a?X-Amz-Signature=a%2F&X-Amz-Credential=K&x=1": "https://h/a?X-Amz-Signature=***&X-Amz-Credential=***&x=1",
    "https://h/a?sv=1&sig=a%3D#top": "https://h/a?sv=1&sig=***#top",
    "https://h/a?abcdefghij": "https://h/a?***",
    "s3://b/x?endpoint_override=http%3A%2F%2Fu%3Apw%40h": "s3://b/x?endpoint_override=http%3A%2F%2F***%40h",
    "Expected X at s3://K:S@b, but got 'a@b' and s3://K:S@c; do it.": (
        "Expected X at s3://***@b, but got 'a@b' and s3://***@c; do it."
    ),
    "connect(user=me, password='PW 1')": "connect(user=me, password='*** 1')",
    "{'Authorization': 'Bearer abc.def'}": "{'Authorization': 'Bearer ***'}",
    "AWS_SECRET_ACCESS_KEY=abc": "AWS_SECRET_ACCESS_KEY=***",
}
PLAIN = (
    *("/data/a@b/c:d@e", "s3://b/a@b", "http://host:8080/a@b", "http://[::1]:80/x@y", "hf://datasets/u/r@main/x"),
    *("abfs://box@acc.dfs.core.windows.net/x", "gs://anonymous@b/x", "gs://b/x?project_id=p", "sqlite:///mlflow.db"),
    *("s3://b/x?endpoint_override=localhost:9000&scheme=http", "https://h/?keyword=cat&page=2", "a: http://h:80, b@c"),
    *("tokens: 5 of 7", "a.parquet#12", ""),
)


@pytest.mark.parametrize("text", CASES)
def test_secrets_are_masked_once_and_for_all(text: str) -> None:
    assert redact(text) == CASES[text]
    assert redact(CASES[text]) == CASES[text]


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_values_of_any_depth() -> None:
    held: dict[str, Any] = {"a": [("s3://K:S@b", 1)], "s3://K:S@b": None}
    assert redact_all(held) == {"a": [("s3://***@b", 1)], "s3://K:S@b": None}


def test_errors_and_their_causes() -> None:
    """Also of libraries, whose texts a traceback shows, and on their way between processes."""
    address = "s3://K:" + "SECRET@b"
    assert str(DynacorError(address)) == str(pickle.loads(pickle.dumps(StorageError(address)))) == "s3://***@b"
    assert first_line(ValueError(address)) == "s3://***@b"
    error = StorageError(f"no {address}")
    error.__cause__ = redacted(OSError(2, "gone", address))
    assert "SECRET" not in "".join(traceback.format_exception(error))
