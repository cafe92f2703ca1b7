"""A run of a step: its record, its journal, its commit."""
