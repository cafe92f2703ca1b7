"""What is made for a release: the pages of the documentation that are read off the tests and the installed wheels."""
