"""Pure functions from a history, a matrix, images or a report to a picture or a page."""
