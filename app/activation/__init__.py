"""Activation: binding the merchant's own order table, and the plan under which payments run."""
