"""Rendering: pictures of frames and scenes, drawn without a screen."""
