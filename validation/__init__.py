"""Check what no unit test can: kills, hostile files, damaged files and long runs."""
