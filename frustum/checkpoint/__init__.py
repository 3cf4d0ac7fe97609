"""Reading and writing files of weights, safely."""
