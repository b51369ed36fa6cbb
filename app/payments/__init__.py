"""Payments.

What one is (model.py), what a caller does (actions.py), what a provider's word does (reports.py), and what is
overdue (sweep.py).
"""
