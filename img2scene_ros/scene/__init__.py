"""The scene: what is there now, with ids that last, and the files it is written to."""
