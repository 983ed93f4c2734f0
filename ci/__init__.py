"""What makes and checks the distributions: ./run wheel and ./run release."""
