"""Run mmdet's own tools, in processes that are ours."""
