"""Training and judging models."""

import os

# Threads that wait for work sleep instead of spinning, which on a machine that is not alone costs a training step
# several times its length. OpenMP reads this when torch is loaded, so it must be set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
