"""Training of the nano models: objects, rendered samples, trainers. The same code runs on a CPU and on a GPU."""
