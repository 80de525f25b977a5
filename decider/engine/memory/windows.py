"""The windows over which an app's requests are counted."""

from __future__ import annotations

import numpy as np

# Subtracted from unix times before they become window numbers, so that those of 1 s fit 32 bits.
EPOCH = 1_600_000_000.0
# Lengths in seconds: for a burst, a short spike, the minute that most features describe, and the
# ten minutes for which an app's record lasts.
WINDOWS = np.array([1.0, 10.0, 60.0, 600.0])
