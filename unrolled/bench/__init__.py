"""Timing of cells in comparison with other libraries."""
