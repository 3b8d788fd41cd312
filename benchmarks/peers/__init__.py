"""edgeprune beside other runtimes, on one checkpoint in one interleaved run: `python -m benchmarks.peers.run`."""
