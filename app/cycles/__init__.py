"""Cycle payments: an agreement a payer signs once, and the deductions made under it on schedule."""
