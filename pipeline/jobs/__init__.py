"""Jobs: stages with a content-hash cache, the runner, the command line, reports."""
