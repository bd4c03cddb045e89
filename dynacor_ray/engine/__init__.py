"""The only code that uses Ray. What Ray reads from the environment is set here, before it is imported.

A variable that the user has set stays.
"""

import logging
import os
import warnings

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # results are polled at this interval; the default of 2 s is felt
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C ends a search as if it were complete
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's newer console output prints a box even when told to be silent
    "RAY_idle_worker_killing_time_threshold_ms": "20000",  # a second is too short: the next stage starts them again
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else Ray's core writes notices on its own actors to our stderr
    "RAY_DEDUP_LOGS_SKIP_REGEX": "PYTHON worker processes have been started",
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
# In a notebook without widgets Ray says so at each start, and a progress bar that we do not use warns.
logging.getLogger("ray.widgets").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", "IProgress not found")
