"""What texts add to a report's page: baselines, scores by length, tokens that matter."""
