"""Files that outlive a process: artifacts, their signatures, uploads."""
