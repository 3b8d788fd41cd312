"""The maths of visual-token pruning, torch only: a method is signal (B,N) -> select (B,K) -> recycle (B,K',C).

`registry` lists the methods by name without importing torch; everything else does import it.
"""
