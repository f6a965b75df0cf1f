"""Choose settings by measuring training steps: learning rate, precision, memory, time budget."""
