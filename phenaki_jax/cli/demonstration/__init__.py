"""What `phenaki demo` does: its stages, what it measures and how it tells of it."""
