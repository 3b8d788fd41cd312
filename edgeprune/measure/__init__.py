"""What is done with a running bundle: parity with the torch reference, pictures of the kept tokens."""
