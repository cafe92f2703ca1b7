"""What a run takes that nobody has made: tasks, requests, bytes and memory, from the formulas that its steps go by."""
