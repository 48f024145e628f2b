"""What an exact resume needs: generators, and the place in the data."""
