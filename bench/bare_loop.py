"""The peer: tokenise, run, softmax, one text at a time; nothing else.

`python -m bench.bare_loop FOLDER TEXTS SECONDS`
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer


def main(folder: Path, texts: list[str], seconds: float) -> dict[str, float]:
    spec = json.loads((folder / "millrace.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec["max_length"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    for text in texts[:50]:
        answer(tokenizer, session, text)
    began, cpu, requests = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < seconds:
        answer(tokenizer, session, texts[requests % len(texts)])
        requests += 1
    return {"requests": requests, "seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}


def answer(tokenizer: Tokenizer, session: ort.InferenceSession, text: str) -> int:
    """The index of the likeliest label."""
    ids_BT = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    logits_BL = session.run(["logits"], {"input_ids": ids_BT, "attention_mask": np.ones_like(ids_BT)})[0]
    shifted_BL = np.exp(logits_BL - logits_BL.max(axis=1, keepdims=True))
    return int((shifted_BL / shifted_BL.sum(axis=1, keepdims=True)).argmax())


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), float(sys.argv[3]))))
