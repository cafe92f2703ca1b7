"""From files to partitions of rows."""
