"""Files, local or remote, and the tables in them."""
