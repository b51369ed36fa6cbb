"""Refunds: asked for once, reserved before they are asked for, followed until they are known."""
