"""What is timed, one script per question."""
