"""Removes credentials from URIs, and from texts that quote them, before they are shown, logged or stored."""

import re
from urllib.parse import unquote

# Parameters that say where an object store is or how it is asked. All others may be secret.
_HARMLESS = {"region", "scheme", "endpoint_override", "retry_limit_seconds"}
# User and password. A password may hold a slash or question mark that should have been written as %2F or %3F.
_USER = r"([^/?#]*:.*|[^/?]*)@"


def without_credentials(uri: str) -> str:
    """Returns the URI with `***` in place of a user and password and of every parameter that may be secret.

    Databases take passwords as parameters too, so only parameters known to be harmless stay.
    """
    nameless = re.sub(f"(?<=://){_USER}", "***@", uri)
    base, question_mark, query = nameless.partition("?")
    if not question_mark:
        return base
    parameters = query.split("&")
    kept = [one for one in parameters if one.partition("=")[0] in _HARMLESS and not {"@", "#"} & set(unquote(one))]
    return f"{base}?" + "&".join(kept if len(kept) == len(parameters) else [*kept, "***"])


def hide_credentials(text: str, uri: str) -> str:
    """Returns a text, such as a library's error message about `uri`, with `***` in place of the URI's credentials.

    A library may quote the whole URI or parts of it: user and password, a password alone, or a parameter.
    """
    text = text.replace(uri, without_credentials(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def hide_users(text: str) -> str:
    """Returns a text, such as a traceback, with `***` in place of user and password of every URI in it."""
    return re.sub(r"(?<=://)[^\s/'\"]+@", "***@", text)


def _secrets(uri: str) -> set[str]:
    """The parts of a URI that may be secret, as they are written and as they are meant."""
    rest = uri.partition("://")[2] or uri
    user = re.match(_USER, rest)
    found = [user[1], user[1].partition(":")[2] or user[1]] if user else []
    parameters = rest[user.end() if user else 0 :].partition("?")[2].split("&")
    found += [value for name, _, value in (one.partition("=") for one in parameters) if name not in _HARMLESS]
    # A shorter one cannot be told from ordinary text.
    return {secret for value in found for secret in (value, unquote(value)) if len(secret) > 3}
