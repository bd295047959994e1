"""Everything that orch asks of Ray; nothing outside this package imports it.

head -> launcher                                        a local cluster; one Ray job a sweep
driver -> search, groups, recorder                      inside the job: one Tune run over a pool of warm worker groups
trainable <-> mailbox <-> worker                        a trial leases a slot; its reports and the decisions on them

Tune proposes and prunes, SQL is the record: what a scheduler sees was committed before.
"""

from __future__ import annotations

import os

# Ray decides when it is first imported whether 127.0.0.1 may stand for this node; see `head`
if os.environ.get("RAY_ADDRESS", "").startswith("127."):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
