"""OpenVINO as it is without `openvino_telemetry`, which tells Google Analytics of every import and network, unasked.

It comes with OpenVINO, writes to ~/intel, and the process that it forks for each message prints a traceback when ended.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def _quietly(*names: str) -> list[Any]:
    """Modules, imported while the one that sends cannot be: OpenVINO takes a stub of its own for it."""
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


openvino, _front_ends, _decoders = _quietly("openvino", "openvino.frontend", "openvino.frontend.pytorch.ts_decoder")
FrontEndManager, TorchScriptPythonDecoder = _front_ends.FrontEndManager, _decoders.TorchScriptPythonDecoder
