"""ViewFusion: a few pictures of an object, of unknown cameras, become any view of it."""
