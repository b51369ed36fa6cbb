"""What a notification is about, or the test fails."""

from app.providers.contract import Notification, PaymentReport, RefundReport


def payment_in(notification: Notification) -> PaymentReport:
    assert isinstance(notification.report, PaymentReport)
    return notification.report


def refund_in(notification: Notification) -> RefundReport:
    assert isinstance(notification.report, RefundReport)
    return notification.report
