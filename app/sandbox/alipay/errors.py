"""How Alipay refuses.

    GatewayRefusal    the call never reached a product: 20000, 20001, 40001, 40002, 40003, 40006. Carries no `sign`.
    BusinessRefusal   the product said no: 40004 with `ACQ.…`. Signed like a success.

A page method shows either as a GBK HTML page to the payer.
"""

MESSAGES = {
    "10000": "Success",
    "20000": "Service Currently Unavailable",
    "20001": "Insufficient Token Permissions",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40003": "Insufficient Conditions",
    "40004": "Business Failed",
    "40005": "Call Limited",
    "40006": "Insufficient Permissions",
}


class Refusal(Exception):
    """`sub_msg` says in Chinese what to change, as the gateway does."""

    def __init__(self, code: str, sub_code: str, sub_msg: str) -> None:
        super().__init__(f"{code} {sub_code} {sub_msg}")
        self.code = code
        self.sub_code = sub_code
        self.sub_msg = sub_msg

    def fields(self) -> dict[str, object]:
        """The answer's fields, in the gateway's order."""
        return {
            "code": self.code,
            "msg": MESSAGES.get(self.code, "Unknown"),
            "sub_code": self.sub_code,
            "sub_msg": self.sub_msg,
        }


class GatewayRefusal(Refusal):
    pass


class BusinessRefusal(Refusal):
    """`echoed` are further fields of the answer, such as the zero amounts of a query for an unknown trade.

    `page_status` is the HTTP status where it is shown as a page; Alipay's is 200, but for one mistake.
    """

    def __init__(
        self, sub_code: str, sub_msg: str, *, echoed: dict[str, object] | None = None, page_status: int = 200
    ) -> None:
        super().__init__("40004", sub_code, sub_msg)
        self.echoed = echoed or {}
        self.page_status = page_status

    def fields(self) -> dict[str, object]:
        return super().fields() | self.echoed


def invalid_field(name: str, reason: str) -> BusinessRefusal:
    """ACQ.INVALID_PARAMETER naming the field of biz_content."""
    return BusinessRefusal("ACQ.INVALID_PARAMETER", f"参数无效：{name} {reason}")
