"""Build and check the distributions: ./run wheel and ./run release."""
