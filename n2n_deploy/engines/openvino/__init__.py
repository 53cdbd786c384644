"""OpenVINO, through ONNX Runtime's plugin."""
