"""Every pair of an input within eps."""
