"""Which of a provider's addresses may be used: requests carry the merchant's signature, answers decide about money."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from app.providers.contract import AccountInvalid


@dataclass(frozen=True, slots=True)
class GatewayRule:
    """TLS everywhere, but for this machine's own addresses and the deployment's sandbox."""

    sandbox_url: str | None = None

    def checked(self, url: str, *, example: str, field: str = "gateway", without_tls: str | None = None) -> str:
        """`url`, if it may be used; `without_tls` is a plain address the provider itself documents.

        Raises AccountInvalid naming `field`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise AccountInvalid(field, f"{field} is no URL") from exc
        plain = url.isascii() and url.isprintable() and " " not in url
        if not plain or not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
            raise AccountInvalid(field, f"{field} must look like {example}, without user, query or fragment")
        if parts.scheme == "https" or url == without_tls:
            return url
        if parts.scheme == "http":
            if _is_loopback(parts.hostname):
                return url
            own = urlsplit(self.sandbox_url or "")
            if own.scheme == "http" and (own.hostname, own.port) == (parts.hostname, port):
                return url
        raise AccountInvalid(
            field, f"{field} must begin with https://; only this machine and the configured sandbox may do without"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
