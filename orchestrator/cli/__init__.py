"""The command line: parse, call the API, print. Imports no torch, ray or mlflow, so that it answers at once."""
