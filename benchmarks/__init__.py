"""Programs that measure: each prints its numbers with the machine, the commit and the date; `--json` for machines."""
