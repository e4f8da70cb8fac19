"""What the evaluation scripts are made of: meshes and baselines, scores, intervals, tables, result files, sheets."""
