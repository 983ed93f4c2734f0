"""How fast the bindings are, side by side with what else there is: ./run bench."""
