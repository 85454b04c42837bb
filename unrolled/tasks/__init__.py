"""Tasks: data, model, decoding and metric put together, each a small composition."""
