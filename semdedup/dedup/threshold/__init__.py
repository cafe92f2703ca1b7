"""From scores to the ids to drop."""
