"""Arrays in, arrays out: imports NumPy and `semdedup.arrays` alone."""
