"""Graph passes: one per file, each with its precondition and postcondition."""
