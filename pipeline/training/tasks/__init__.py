"""What each nano model is trained to do, as tasks of the one trainer."""
