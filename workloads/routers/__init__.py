"""Routers: which experts see which tokens. Options stand in `options/`, torch-free."""
