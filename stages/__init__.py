"""What is read and written: one module per DVC stage, with all of its paths and I/O."""
