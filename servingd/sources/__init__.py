"""Where the statements come from, which versions ought to be loaded."""
