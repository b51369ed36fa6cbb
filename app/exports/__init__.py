"""Payments and refunds as CSV: the books of a period, and the archive that turning payments off leaves."""
