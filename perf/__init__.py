"""Speed against what a user would run instead: `python -m perf`. Ratios only, both sides in turn in one process."""
