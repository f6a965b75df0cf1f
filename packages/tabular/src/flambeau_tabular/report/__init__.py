"""Reports on tables: baselines, importance, dependence, slices, drift, and a card per column."""
