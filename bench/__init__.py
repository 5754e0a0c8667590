"""The benchmark suite: the figures that the shape of Millrace decides, beside their aims and peers."""
