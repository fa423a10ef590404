"""Reading files: frames with their cameras, photos."""
