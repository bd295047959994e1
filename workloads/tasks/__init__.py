"""Tasks: data, loss, score and trivial baseline of what a trial learns. Options stand in `options/`, torch-free."""
