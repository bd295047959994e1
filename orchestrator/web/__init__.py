"""The HTTP door: FastAPI, bearer tokens, JSON documents."""
