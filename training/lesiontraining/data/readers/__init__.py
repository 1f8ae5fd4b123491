"""Published and local collections read into one table of lesions, a file a format."""
