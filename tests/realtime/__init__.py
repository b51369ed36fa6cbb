"""Live results, on real servers: what is lost on the way must cost time and never a state."""
