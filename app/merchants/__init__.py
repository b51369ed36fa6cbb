"""Merchant accounts: our credentials at a provider, sealed in the database and opened in memory only."""
