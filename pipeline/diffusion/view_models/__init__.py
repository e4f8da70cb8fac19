"""View models: Zero123-type (nano and public) and Zero123++."""
