"""A nerfstudio method of the hash field; imported by nerfstudio through its entry point, and by nothing else here."""
