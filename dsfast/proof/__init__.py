"""Whether a cluster kept its promises: one history format, and a checker that knows the rules but no engine."""
