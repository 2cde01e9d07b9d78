"""Work on a whole store: checking, repairing, summing up, copying while nothing is mounted."""
