"""What stands between the two matrices of a feed-forward: plain functions, gates (GLU), and rules for its output."""
