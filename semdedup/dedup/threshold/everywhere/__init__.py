"""The removal rules over the whole input, where matches were found across clusters (`exact_up_to`)."""
