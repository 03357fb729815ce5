"""What is implemented, relaxed or missing in this app, as it is now."""
