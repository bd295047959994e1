"""Curves and runs in MLflow. A view: what it shows is in the store first, and it may be away.

server    an MLflow of one's own, started as a detached process
courier   the outbox, carried to the tracker by a thread that never gives up
mlflow    how sweeps and trials look in MLflow
"""
