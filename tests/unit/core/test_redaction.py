"""Secrets do not leave the program, whatever text they stand in."""

from __future__ import annotations

import pickle
import time
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
    "connect(user=me, password='PW 1')": "connect(user=me, password='***')",
    "{'Authorization': 'Bearer abc.def'}": "{'Authorization': '***'}",
    "AWS_SECRET_ACCESS_KEY=abc": "AWS_SECRET_ACCESS_KEY=***",
    "exceeded with url: /x?sv=1&sig=abc (Caused by": "exceeded with url: /x?sv=1&sig=*** (Caused by",
    "AccountName=a;AccountKey=abc==;EndpointSuffix=x": "AccountName=a;AccountKey=***;EndpointSuffix=x",
    "AccountName=a;SharedAccessSignature=sv=1&sig=abc": "AccountName=a;SharedAccessSignature=***&sig=***",
    "sas_token='?sv=2020&sig=abc', retries=2": "sas_token='***', retries=2",
    "Authorization: AWS4-HMAC-SHA256 Credential=K/s3, Signature=abc": "Authorization: ***",
    "set-cookie: sid=abc; path=/": "set-cookie: ***",
    '"private_key": "-----BEGIN PRIVATE KEY-----\\nabc"': '"private_key": "***"',
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END": "-----BEGIN RSA PRIVATE KEY-----***-----END",
    "mlflow --password abc --port 1": "mlflow --password *** --port 1",
    "['mlflow', '--token', 'abc']": "['mlflow', '--token', '***']",
    "mssql:///?odbc_connect=UID%3Da%3BPWD%3Dabc%3B": "mssql:///?odbc_connect=***",
    "UID%3Da%3BPWD%3Dabc%3Bx": "UID%3Da%3BPWD%3D***%3Bx",
    "s3://KEY:a'b@c/x": "s3://***@c/x",
    "//u:pw@host/x": "//***@host/x",
    "s3:/KEY:SECRET@b/x": "s3:/***@b/x",
    "'fs.s3a.secret.key': 'abc', 'a': 1": "'fs.s3a.secret.key': '***', 'a': 1",
    "https://h/a?pass=abc&jwt=d&pat=e&code=f": "https://h/a?pass=***&jwt=***&pat=***&code=***",
    "no such repository for hf_abcdefghijklmnopqrst": "no such repository for ***",
    "bearer abc123.def": "bearer ***",
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln is wrong": "*** is wrong",
    "the password is 'PW 1', or": "the password is '***', or",
    "Password is hunter2": "Password is ***",
    "failed with token abc123 at h": "failed with token *** at h",
    "machine h login u password PW": "machine h login u password ***",
    "ALTER USER a IDENTIFIED BY 'PW'": "ALTER USER a IDENTIFIED BY '***'",
    r"{\"password\": \"PW\", \"a\": 1}": r"{\"password\": \"***\", \"a\": 1}",
    r"password='it\'s PW'": "password='***'",
    "password='it''s PW', a='x'": "password='***', a='x'",
    "password=a'b'c": "password=***",
    "password => 'PW'": "password => '***'",
    '--password "a PW" --port 1': '--password "***" --port 1',
    "auth=('u', 'PW'), a=1": "auth=***, a=1",
    "secrets={'a': 'PW'}": "secrets=***",
    "('X-Auth-Token', 'abc123')": "('X-Auth-Token', '***')",
    "- name: DB_PASSWORD\n  value: PW": "- name: DB_PASSWORD\n  value: ***",
    "{'name': 'API_KEY', 'value': 'PW'}": "{'name': 'API_KEY', 'value': '***'}",
    "<SessionToken>PW</SessionToken>": "<SessionToken>***</SessionToken>",
    '<password value="PW"/>': '<password value="***"/>',
    "%22password%22%3A%20%22P%2FW%22%2C": "%22password%22%3A%20%22***%22%2C",
    "password&#61;PW; token\\u003dPW": "password&#61;***; token\\u003d***",
    "?a=1&amp;sig=PW": "?a=1&amp;sig=***",
    "to s3%3A%2F%2FK%3ASECRET%40b": "to s3%3A%2F%2F***%40b",
    "proxy u:PW@proxy:3128": "proxy ***@proxy:3128",
    "Proxy: Basic dXNlcjpwYXNz": "Proxy: Basic ***",
    "pass=abc123 auth=def456": "pass=*** auth=***",
    "xoxb-123-456-abc AKIAIOSFODNN7EXAMPLE:PW": "*** ***",
    "https://h/a?hmac=PW&sas=PW&authkey=PW&bearer=PW": "https://h/a?hmac=***&sas=***&authkey=***&bearer=***",
    "fs.s3a.secret.key PW123456": "fs.s3a.secret.key ***",
    "curl -u me:PW https://h": "curl -u me:*** https://h",
    "jdbc:oracle:thin:u/PW@h:1521:x": "jdbc:oracle:thin:u/***@h:1521:x",
    "hooks.slack.com/services/T00/B00/abcdefghij": "hooks.slack.com/services/***",
    "discord.com/api/webhooks/12345/abcdefghijklmnop": "discord.com/api/webhooks/***",
    "https://api.telegram.org/bot12345:abcdefghijklmnop/x": "https://api.telegram.org/bot***/x",
    "https://u:PW\uff20host/x": "https://***@host/x",
    "s3://KEY:SECRET\ufe6bb/x": "s3://***@b/x",
    "s3:/KEY:SECRET\uff20b/x": "s3:/***@b/x",
    "sshpass -p PW ssh me@h": "sshpass -p *** ssh me@h",
    "sshpass -v -pPW ssh h": "sshpass -v -p*** ssh h",
    "sshpass -p 'a PW' ssh h": "sshpass -p *** ssh h",
    "docker login -u me -p PW registry": "docker login -u me -p *** registry",
    "mysqldump -u me -pPW db": "mysqldump -u me -p*** db",
    "redis-cli -h h -a PW ping": "redis-cli -h h -a *** ping",
    "net use Z: \\\\h\\s PW /user:me": "net use Z: \\\\h\\s *** /user:me",
    "net use \\\\h\\s /user:me PW": "net use \\\\h\\s /user:me ***",
    "https://h/a?p=hunter2&x=1": "https://h/a?p=***&x=1",
    "PRIVATE KEY BLOCK-----\nPW\n-----END": "PRIVATE KEY BLOCK-----***-----END",
}
PLAIN = (
    *("/data/a@b/c:d@e", "s3://b/a@b", "http://host:8080/a@b", "http://[::1]:80/x@y", "hf://datasets/u/r@main/x"),
    *("abfs://box@acc.dfs.core.windows.net/x", "gs://anonymous@b/x", "gs://b/x?project_id=p", "sqlite:///mlflow.db"),
    *("s3://b/x?endpoint_override=localhost:9000&scheme=http", "https://h/?keyword=cat&page=2", "a: http://h:80, b@c"),
    *("tokens: 5 of 7", "a.parquet#12", "", "the basic classification", "bearer of news", "tokenizer: fast"),
    *(
        "passed=3",
        "//host:80/a@b",
        "a//b:c",
        "C:/Users/a@b",
        "hf_hub",
        "hf_images_of_wild_birds",
        "monkey=3",
        "Expires in 5",
    ),
    *("the password is required", "token is missing", "secret garden", "token 1234567", "a token classification"),
    *("global_pool in ('token', 'avg')", "asianelephant asia_2024", "basic resnet50", "Basic dXNlcm5hbWU", "pass=3"),
    *("name: token, value", "<token>a", "12:30@noon", "auth=basic", "tokens=[1, 2]"),
    *("https://h/?p=12&q=a", "https://h/?p=about", "mysql -p db", "ssh -p 2222 h", "mkdir -p a1b2c3", "cat\uff20home"),
    *("net use of labels", "net use \\\\h\\s /user:me", "the login page -p 80", "redis-cli -h h -p 6379"),
    *("docker run -u 1000:1000", "secret key of birds", "https://h/robot12345/x", "--user me"),
)


@pytest.mark.parametrize("text", CASES)
def test_secrets_are_masked_once_and_for_all(text: str) -> None:
    assert redact(text) == CASES[text]
    assert redact(CASES[text]) == CASES[text]


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


LONG = (
    *("a.", "x://u:", "://", "@//u:", "a:/b:@", "token", "?key", "'secret:'", "--token ", "eyJaaaaaaaa.", "u:p"),
    *("token = (", "password''", "name=token,", "<token>", r"\"secret\"", "password is ", "login a ", "token%22"),
    *("basic a", "=a%3a%2f%2f", " -u a", ":thin:a/", "/bot12345", "/webhooks/1"),
    *("sshpass ", "sshpass -", "mysql -", "net use ", "net use \\\\h ", "login -p", "?p=a", "x://u:p\uff20"),
)


@pytest.mark.parametrize("part", LONG)
def test_long_texts_take_no_long_time(part: str) -> None:
    began = time.process_time()
    redact(part * (20_000 // len(part)))
    assert time.process_time() - began < 2


def test_values_of_any_depth() -> None:
    held: dict[str, Any] = {"a": [("s3://K:S@b", 1)], "s3://K:S@b": None}
    assert redact_all(held) == {"a": [("s3://***@b", 1)], "s3://K:S@b": None}


def test_errors_and_their_causes() -> None:
    """Also of libraries, whose texts a traceback shows, and on their way between processes."""
    address = "s3://K:" + "SECRET@b"
    assert str(DynacorError(address)) == str(pickle.loads(pickle.dumps(StorageError(address)))) == "s3://***@b"
    assert first_line(ValueError(address)) == "s3://***@b"

    class AnswerError(OSError):
        def __str__(self) -> str:
            return f"404 at {address}"

    answer = redacted(AnswerError(2, "gone"))
    answer.add_note(address)
    assert "SECRET" not in "".join(traceback.format_exception(redacted(answer)))
    assert isinstance(answer, AnswerError)
    error = StorageError(f"no {address}")
    error.__cause__ = redacted(OSError(2, "gone", address))
    assert "SECRET" not in "".join(traceback.format_exception(error))
