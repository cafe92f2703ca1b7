"""What a run would find and cost, from a sample of the rows compared with all of them."""
