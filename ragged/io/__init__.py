"""Files: checkpoints, atomic writes, JSON and YAML of plain values."""
