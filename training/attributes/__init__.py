"""What `cma_clip` is made of: token sequences of both towers, their fusion, labelled batches."""
