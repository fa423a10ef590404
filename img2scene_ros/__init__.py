"""Object models for robots: camera images in, posed closed meshes out."""
