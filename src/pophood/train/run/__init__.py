"""One run from its settings to its folder: the plan, the clock, stopping, the result."""
