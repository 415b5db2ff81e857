"""The target data: readers, check, preprocessing, patch queue, and the data module over them."""
