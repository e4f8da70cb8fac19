"""A nerfstudio method of the query field; imported by nerfstudio through its entry point, and by nothing else here."""
