"""Run a bundle: the Python face of libedgeprune. `edgeprune.load` is the way in."""
