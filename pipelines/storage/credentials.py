"""Removes credentials from URIs before they are shown, logged or stored."""

import re
from urllib.parse import unquote

# Parameters that say where an object store is or how it is asked. All others may be secret.
_HARMLESS = {"region", "scheme", "endpoint_override", "retry_limit_seconds"}


def without_credentials(uri: str) -> str:
    """Returns the URI with `***` in place of a user and password and of every parameter that may be secret.

    Databases take passwords as parameters too, so only parameters known to be harmless stay.
    """
    # A password may hold a slash or question mark that should have been written as %2F or %3F.
    nameless = re.sub(r"(?<=://)([^/?#]*:.*|[^/?#]*)@", "***@", uri)
    base, question_mark, query = nameless.partition("?")
    if not question_mark:
        return base
    parameters = query.split("&")
    kept = [one for one in parameters if one.partition("=")[0] in _HARMLESS and "@" not in unquote(one)]
    return f"{base}?" + "&".join(kept if len(kept) == len(parameters) else [*kept, "***"])
