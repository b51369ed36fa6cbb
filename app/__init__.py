"""Shouyin 收银: a payment backend you run yourself. Layers and folders are drawn in the README."""
