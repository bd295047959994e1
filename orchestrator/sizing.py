"""Sizes of models from a process of its own: they take torch, which neither command line nor coordinator imports."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from orchestrator.errors import BadInput, OrchError
from orchestrator.processes import go_in_turn

MOST_KNOWN = 10_000
"""Answers that are kept; a search with `match` has thousands of candidates."""

DATA_LAST_S = 60.0
"""How long what is known of data is believed: somebody may write a file of them anew."""


class SubprocessSizer:
    """Starts `python -m workloads.sizing` at the first question and ends it when closed. Safe to share by threads."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, dict[str, float]]] = OrderedDict()
        """By question, when it was asked and the answer."""

    def size(self, config: Mapping[str, Any]) -> dict[str, float]:
        """params, active_params, train_flops_per_token, inference_flops_per_token, state_bytes of one configuration.

        Raises:
            BadInput: no model has this configuration.
        """
        # What else a trial is trained with changes nothing, and variants of it ask but once
        length = {key: each for key, each in config.get("training", {}).items() if key == "sequence_length"}
        model = {key: config[key] for key in ("task", "model") if key in config}
        return self._answer("budget", {**model, "training": length})

    def data_checksum(self, config: Mapping[str, Any]) -> int:
        """What a trial of this configuration will report as `data_checksum`.

        Raises:
            BadInput: its data are not on this machine.
        """
        return int(self._answer("data", {"task": config.get("task", {})}, last_s=DATA_LAST_S)["checksum"])

    def memory_bytes(self, config: Mapping[str, Any]) -> int:
        """What training it takes at least, of one worker with the whole batch.

        Raises:
            BadInput: no model has this configuration.
        """
        return int(self._answer("memory", config)["bytes"])

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None:
                self._process.terminate()
                self._process.wait(timeout=10)
                self._process = None

    def __enter__(self) -> SubprocessSizer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _answer(self, kind: str, config: Mapping[str, Any], *, last_s: float = math.inf) -> dict[str, float]:
        question = json.dumps({kind: config}, sort_keys=True)
        with self._lock:
            asked_s, answer = self._known.get(question, (-math.inf, {}))
            if not answer or self._now_s() - asked_s >= last_s:
                asked_s, answer = self._now_s(), self._ask(question)
                self._known[question] = asked_s, answer
                if len(self._known) > MOST_KNOWN:
                    self._known.popitem(last=False)
            self._known.move_to_end(question)
            return answer

    def _ask(self, question: str) -> dict[str, float]:
        if self._process is None:
            command = [sys.executable, "-m", "workloads.sizing"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
            go_in_turn(self._process.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process = None
            raise OrchError("the process that works out sizes ended; try again, and see `orch doctor`.")
        answer = json.loads(line)
        if "error" in answer:
            raise BadInput(str(answer["error"]))
        return {name: float(value) for name, value in answer.items()}
