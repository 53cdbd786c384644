"""TensorRT, TensorRT for RTX and the lean runtime."""
