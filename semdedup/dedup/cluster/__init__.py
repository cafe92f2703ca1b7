"""The clustering: fit, assign, shuffle by cluster."""
