"""CTs from DICOM and image files; boxes, segmentations and case tables."""
