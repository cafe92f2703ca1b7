"""Stretches of time that two videos share, and the clips that go because of them."""
