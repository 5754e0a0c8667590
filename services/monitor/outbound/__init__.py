"""The monitor's database and its reader of baselines."""
