"""Small demonstrations: memory tasks, codes, the error surface, min-char-rnn and synthetic texts."""
