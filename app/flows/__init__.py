"""Flows: the merchant's business logic, run once per event, with its effects in the same transaction as the mark."""
