"""What a model did, for people: pictures and numbers."""
