"""What batch norm means: each operation with its specification, a float64 oracle and its StableHLO."""
