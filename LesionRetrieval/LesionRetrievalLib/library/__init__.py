"""The case library in one file: cases, search, patches, pseudonyms, intake; knows no Slicer and no torch."""
