"""Bundle -> variant for one target. Reads files of a bundle; imports torch and transformers never."""
