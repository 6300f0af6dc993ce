"""The static check: what can be proved of a gradient from the program alone; knows no framework."""
