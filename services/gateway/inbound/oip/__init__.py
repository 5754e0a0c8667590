"""The Open Inference Protocol, version 2: its REST API and its gRPC service, over one conversion.

`tensors` knows the bytes, `infer` turns either transport's request into the handlers' command and the answer into
tensors, `models` shows deployments as models, `repository` loads and unloads; `rest`, `routes` and `grpc` only
translate.
"""
