"""Where the ends of jobs may be told: the flag `--job_webhooks`, an allow-list of addresses."""

from __future__ import annotations

from urllib.parse import urlsplit


def webhooks_in(text: str) -> tuple[str, ...]:
    """Return the addresses in a text with commas."""
    return tuple(part for part in (each.strip() for each in text.split(",")) if part)


def are_webhooks(text: str) -> str | None:
    """Check for addresses of HTTP that end with a slash, with commas."""
    for address in webhooks_in(text):
        if not _is_plain(address) or not address.endswith("/"):
            return f"addresses such as https://host/path/, with commas ({address!r} is none)"
    return None


def is_allowed(url: str, allowed: tuple[str, ...]) -> bool:
    """Return whether an address lies below one of those that are allowed, without tricks."""
    return (
        _is_plain(url)
        and not any(part in (".", "..") for part in urlsplit(url).path.split("/"))
        and any(url.startswith(each) for each in allowed)
    )


def _is_plain(url: str) -> bool:
    """Return whether it is an address with scheme and host, without user, escapes or fragment."""
    try:
        parts = urlsplit(url)
        known = parts.port is None or parts.port > 0
    except ValueError:
        return False
    printable = url.isascii() and url.isprintable() and " " not in url
    host = bool(parts.hostname) and "@" not in parts.netloc
    plain = not parts.fragment and "%" not in parts.path and "\\" not in url
    return known and printable and host and plain and parts.scheme in ("http", "https")
