"""Training: clips with exact masks, assignment of objects to queries, losses, and the loop."""
