"""Where the values of a staged program lie; knows no framework."""
