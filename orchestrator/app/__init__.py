"""Wiring: the only place that knows every concrete class. `serve` runs the coordinator, `drive` one sweep's driver."""
