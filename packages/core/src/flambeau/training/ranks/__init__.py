"""Training with several processes: the run of a rank, and the step that all ranks compute."""
