"""From photos to views: diffusion, editing, training, and the jobs that tie the rooms together."""
