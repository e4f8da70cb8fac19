"""The stages of the jobs: dataclasses whose fields are their inputs, run and kept by the runner."""
