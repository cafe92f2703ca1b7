"""Rows of one set that duplicate rows of another."""
