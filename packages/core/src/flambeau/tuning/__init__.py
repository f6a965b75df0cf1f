"""Decisions that need real training steps: learning rate, memory, precision, speed, time budget."""
