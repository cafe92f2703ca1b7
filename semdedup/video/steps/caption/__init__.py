"""Captions: what a clip shows, in words, window by window, by a vision-language model."""
