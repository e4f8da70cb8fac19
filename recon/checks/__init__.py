"""What is wrong with a capture before a surface is fitted to it."""
