"""Data that tasks read: what is kept in the repository, and how files are found and checked."""
