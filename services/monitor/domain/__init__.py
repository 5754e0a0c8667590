"""The monitor's pure rules: numbers in, judgements out. Standard library, numpy and the contracts only."""
