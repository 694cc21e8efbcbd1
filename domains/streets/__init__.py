"""The demo's data: rendered street scenes in two appearances."""
