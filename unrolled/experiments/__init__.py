"""What trains nets of its own to show something: memory tasks, codes, the error surface, min-char-rnn, made texts."""
