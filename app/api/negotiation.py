"""Which media type an answer takes, by the request's Accept header (GraphQL over HTTP, section 6.3)."""

from functools import lru_cache
from typing import Final

GRAPHQL_JSON: Final = "application/graphql-response+json"
PLAIN_JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
HTML: Final = "text/html"

# A wildcard gets what the oldest client reads.
_OFFERED: Final = (PLAIN_JSON, GRAPHQL_JSON, EVENT_STREAM)


@lru_cache(maxsize=256)
def choose_media_type(accept: str | None, *, html: bool = False) -> str | None:
    """The best media type we offer, None when the client takes none of them. No header means JSON."""
    if accept is None or not accept.strip():
        return PLAIN_JSON
    offered = (*_OFFERED, HTML) if html else _OFFERED
    best: tuple[float, int, str] | None = None
    for place, part in enumerate(accept.split(",")[:50]):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(parameters)
        found = next((media for media in offered if _matches(name, media)), None)
        if found is None or quality <= 0:
            continue
        # Among equals the first named wins.
        if best is None or quality > best[0]:
            best = (quality, place, found)
    return best[2] if best is not None else None


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _matches(name: str, media: str) -> bool:
    if name in ("*/*", media):
        return True
    kind, _, rest = name.partition("/")
    return rest == "*" and media.startswith(f"{kind}/")
