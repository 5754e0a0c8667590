"""ONNX Runtime, the artifact checks, the files kept on disk and what is sent out."""
