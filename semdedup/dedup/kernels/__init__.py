"""Arrays in, arrays out: imports NumPy, SciPy, `semdedup.arrays` and `semdedup.errors` alone."""
