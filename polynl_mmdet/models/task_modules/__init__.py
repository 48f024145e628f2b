"""Assigner and coder of RetinaFace."""
