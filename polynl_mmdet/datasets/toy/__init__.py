"""Draws the built-in data."""
