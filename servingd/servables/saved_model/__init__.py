"""SavedModels, run by TensorFlow in this process. TensorFlow is imported at the first load."""
