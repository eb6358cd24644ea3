"""The simulated engine has the names of the engine it plays."""

from __future__ import annotations

from runtime.engines.sglang import metrics as sglang
from runtime.engines.vllm import metrics as vllm
from runtime.metrics.rules import Rules, merged

RULES: Rules = merged(vllm.RULES, sglang.RULES)
