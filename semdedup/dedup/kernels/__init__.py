"""Arrays in, arrays out: imports NumPy, `semdedup.arrays` and `semdedup.errors` alone."""
