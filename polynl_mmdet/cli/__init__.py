"""Running mmdet's own tools: where the process is ours."""
