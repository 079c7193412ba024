"""The search: specification, storage, samplers, the objective, and what was found."""
