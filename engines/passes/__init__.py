"""Graph passes of the dialects, one file each; `base.py` says what a pass is."""
