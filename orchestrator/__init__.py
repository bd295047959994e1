"""The service of orch."""
