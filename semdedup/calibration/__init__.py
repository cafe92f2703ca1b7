"""An eps from pairs that a person has judged: which pairs to judge, what the verdicts tell, and how surely."""
