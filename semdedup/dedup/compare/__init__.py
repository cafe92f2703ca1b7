"""The comparison within clusters: ranks and scores."""
