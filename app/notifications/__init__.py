"""Notifications: the inbox that is committed before a provider is answered, and what becomes of it."""
