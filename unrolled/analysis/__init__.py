"""Measurements of a net's memory and gradient flow, for any cell, and their figures."""
