"""torch -> ONNX: a checkpoint becomes a bundle with the pruning inside the vision graph. Entry: `pipeline.export`."""
