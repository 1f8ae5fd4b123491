"""A case library on a Milvus server: the same contract as the file."""
