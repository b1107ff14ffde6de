"""ONNX operators, each over its attributes: what an importer must compute as onnxruntime does."""
