"""What can be asked of a result afterwards."""
