"""A package outside raylearn: two strategies and a detector family, found by their entry points."""
