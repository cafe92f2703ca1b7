"""A result to look at: one page of HTML, or the plot of its curve."""
