"""The auto-submitting form that does the same as opening a redirect's URL.

Some pages cannot navigate but can write HTML. The form is derived from the stored URL whenever it is asked for, so that
a payment's row carries the URL once and not twice.
"""

from html import escape
from urllib.parse import parse_qsl, urlsplit, urlunsplit

_FORM_LIMIT_FIELDS = 200


def redirect_form(url: str) -> str:
    """An HTML fragment that opens `url` by a GET form as soon as it is parsed; pure.

    A GET form replaces the query of its action, so every parameter becomes a hidden field. The browser submits them as
    UTF-8 whatever the page's own charset is. Raises ValueError for anything but an http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("only an absolute http or https URL can become a form")
    fields = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_FORM_LIMIT_FIELDS)
    inputs = "".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields)
    action = escape(urlunsplit((parts.scheme, parts.netloc, parts.path, "", parts.fragment)))
    # Called through the prototype: a field that happens to be named "submit" would shadow the form's own method.
    return (
        f'<form method="get" action="{action}" accept-charset="utf-8">{inputs}'
        '<noscript><button type="submit">继续支付</button></noscript></form>'
        "<script>HTMLFormElement.prototype.submit.call(document.currentScript.previousElementSibling)</script>"
    )
