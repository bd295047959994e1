"""Webhooks: people's chat rooms and programs are told when a sweep ends, a trial fails, a better result is there."""
