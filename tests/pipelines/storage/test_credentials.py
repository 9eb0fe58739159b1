"""No credential of a URI is in what is shown of the URI, or of a text that quotes it or parts of it."""

import pytest

from pipelines.storage.credentials import hide_credentials

SECRETS = ("hush-hush", "me-me")


@pytest.mark.parametrize(
    ("uri", "text", "shown"),
    [
        ("ray://me-me:hush-hush@host:1", "cannot reach ray://me-me:hush-hush@host:1", "cannot reach ray://***@host:1"),
        ("ray://me-me:hush-hush@host:1", "me-me:hush-hush@host:1 is down", "***@host:1 is down"),
        ("ray://host:1?token=hush-hush", "token=hush-hush was refused", "token=*** was refused"),
        ("ray://hush-hush@host:1", "no host hush-hush@host", "no host ***@host"),
        ("me-me:hush-hush@host:1", "no host 'me-me:hush-hush@host'", "no host '***@host'"),
        ("host:1?token=hush%2Dhush", "1?token=hush-hush is no number", "1?token=*** is no number"),
        ("postgresql://me-me:hush%2Dhush@host/a", "password hush-hush was refused", "password *** was refused"),
        ("s3://me-me:hush/hush?a@b/c?region=eu-1", "hush/hush?a in eu-1", "*** in eu-1"),
        ("http://host:1/path", "http://host:1/path is down", "http://host:1/path is down"),
    ],
)
def test_what_is_shown_of_a_text_about_a_uri(uri: str, text: str, shown: str) -> None:
    assert hide_credentials(text, uri) == shown
    assert not any(secret in hide_credentials(f"{uri} {text}", uri) for secret in SECRETS[:1])
