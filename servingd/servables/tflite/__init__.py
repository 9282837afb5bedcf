"""TF Lite models, served in the place of a SavedModel where that is preferred."""
