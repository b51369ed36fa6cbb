"""The payer's own address, as WeChat takes it."""

from ipaddress import IPv6Address, ip_address

from app.providers.contract import PaymentRequest


def payer_address(request: PaymentRequest) -> str | None:
    """The payer's address in its plain writing; None where there is none that could be one.

    A server that listens on IPv6 sees an IPv4 payer as ::ffff:203.0.113.7, which is not where WeChat sees them."""
    try:
        address = ip_address(request.client_address or "")
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address).partition("%")[0]
