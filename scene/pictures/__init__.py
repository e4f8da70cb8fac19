"""What a picture file means: its format, the range of its values, its colours, and how it is turned."""
