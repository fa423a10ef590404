"""What is true of meshes, whoever made them."""
