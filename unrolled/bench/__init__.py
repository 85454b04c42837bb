"""Timing of cells, side by side with other libraries."""
