"""How samples are laid out in a dataset, a file for each layout."""
