"""What of a URI may be written and logged."""

import re
from urllib.parse import unquote

# Where an object store is, and nothing secret.
_HARMLESS = {"region", "scheme", "endpoint_override", "retry_limit_seconds"}


def without_credentials(uri: str) -> str:
    """The URI as it may be written and logged: `***` stands for what is left out."""
    # A password may hold a slash or a question mark that should have been written as %2F or %3F.
    nameless = re.sub(r"(?<=://)([^/?#]*:.*|[^/?#]*)@", "***@", uri)
    place, mark, query = nameless.partition("?")
    parameters = query.split("&")
    kept = [one for one in parameters if one.partition("=")[0] in _HARMLESS and "@" not in unquote(one)]
    # Databases take a password as a parameter, too.
    return place + mark + "&".join(kept if len(kept) == len(parameters) or not mark else [*kept, "***"])
