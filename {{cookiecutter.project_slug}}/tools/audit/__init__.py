"""The audit: it shows which mitigations are implemented, relaxed or missing in the current app."""
