"""The headers that every answer carries, so that a browser does no more with it than is meant."""

import base64
import hashlib
from collections.abc import Sequence

Header = tuple[bytes, bytes]

NO_SNIFFING: Header = (b"x-content-type-options", b"nosniff")
NO_STORE: Header = (b"cache-control", b"no-store")
ANSWER_HEADERS = (NO_SNIFFING, NO_STORE)
CLOSE: Header = (b"connection", b"close")
# Scripts, styles and pictures of this server alone, nothing in the page itself, and no other site may frame it.
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
PAGE_HEADERS: tuple[Header, ...] = (
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", PAGE_POLICY.encode()),
)


def list_missing(headers: Sequence[Header]) -> list[Header]:
    """Return the headers that an answer lacks; what the answer itself says counts.

    Files say by their ETag whether they have changed, so these may be kept.
    """
    given = dict(headers)
    added = [NO_SNIFFING]
    if b"cache-control" not in given and b"etag" not in given:
        added.append(NO_STORE)
    if given.get(b"content-type", b"").startswith(b"text/html"):
        added += [header for header in PAGE_HEADERS if header[0] not in given]
    return added


def allow_script(script: str) -> str:
    """Return the policy of a page that holds this one script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{PAGE_POLICY}; script-src 'self' 'sha256-{digest}'"
