"""What a net remembers and where its gradient goes: measurements over any cell, and their figures."""
