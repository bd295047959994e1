"""Past usage: the share of the pool that an account held lately, an exponentially weighted average over time."""

from __future__ import annotations


def averaged(before: float, share: float, *, held_s: float, passed_s: float, half_life_s: float) -> float:
    """The average after `passed_s` seconds, in the last `held_s` of which the account held `share` of the pool.

    Resource-seconds that decay by half every `half_life_s`, divided by what a whole pool held for ever comes to: so
    that past and present shares have one unit and add.
    """
    decay = 0.5 ** (max(passed_s, 0.0) / half_life_s)
    gain = 1 - 0.5 ** (max(held_s, 0.0) / half_life_s)
    return before * decay + share * gain
