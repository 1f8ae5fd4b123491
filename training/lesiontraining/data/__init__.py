"""From a table of lesions to what networks see of them: readers, checks, splits, image sets."""
