"""llama.cpp as a peer: greedy sampling, one JSON line per request.

    python llama_cpp_bench.py MODEL.gguf '{"workload": "sample", "prompts": [[1, 2, 3]], "new_tokens": 32}'
    python llama_cpp_bench.py MODEL.gguf < requests.jsonl      # stays alive, so that runs can be interleaved

Answers go to stdout, all else to stderr; a request that fails is answered with {"error": ...}. Weights stay as they are
in the file. Sequences are decoded together through the low-level API, as in llama.cpp's `batched` and `parallel`
examples: what all prompts begin with is read once and copied to the other sequences.

`sample`: `prompts` [[token, ...], ...], `new_tokens`. Replies do not stop at the end token. Answer: seconds,
new_tokens, new_tokens_per_second, replies, peak_rss_bytes. `load`: the model, ready to sample.
"""

import argparse
import time
from itertools import takewhile

import llama_cpp
import numpy as np
from serve import serve, take_stdout

BATCH = 2048  # llama.cpp's default for tokens in one call; it works on 512 of them at a time


class Decoder:
    """Sequences in one context."""

    def __init__(self, model: object, sequences: int, length: int, threads: int):
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = sequences * -(-length // 256) * 256, sequences  # a multiple of 256 each
        settings.n_batch, settings.n_threads, settings.n_threads_batch = BATCH, threads, threads
        self.context = llama_cpp.llama_init_from_model(model, settings)
        if not self.context:
            raise MemoryError("llama.cpp cannot make the context")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def decode(self, tokens: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Reads (sequence, position, token, wanted); the most probable next token of sequences where it is wanted."""
        found: dict[int, int] = {}
        for start in range(0, len(tokens), BATCH):
            found |= self.decode_batch(tokens[start : start + BATCH])
        return found

    def decode_batch(self, tokens: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (sequence, position, token, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        return {sequence: self.argmax(i) for i, (sequence, _, _, wanted) in enumerate(tokens) if wanted}

    def argmax(self, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self.context, index)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def copy_first(self, sequences: int) -> None:
        """Gives the other sequences what the first one has read."""
        memory = llama_cpp.llama_get_memory(self.context)
        for sequence in range(1, sequences):
            llama_cpp.llama_memory_seq_cp(memory, 0, sequence, -1, -1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)


def common_start(prompts: list[list[int]]) -> int:
    """What all prompts begin with, so that at least one token of each is left."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in alike), min(map(len, prompts)) - 1)


def replies(decoder: Decoder, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    shared = common_start(prompts) if len(prompts) > 1 else 0
    decoder.decode([(0, position, token, False) for position, token in enumerate(prompts[0][:shared])])
    if shared:
        decoder.copy_first(len(prompts))
    rest = [
        (sequence, position, prompt[position], position == len(prompt) - 1)
        for sequence, prompt in enumerate(prompts)
        for position in range(shared, len(prompt))
    ]
    next_tokens, out = decoder.decode(rest), [[] for _ in prompts]
    while True:
        for sequence, token in next_tokens.items():
            out[sequence].append(token)
        if len(out[0]) >= new_tokens:
            return out
        ends = [len(prompt) + len(reply) - 1 for prompt, reply in zip(prompts, out, strict=True)]
        next_tokens = decoder.decode([(s, ends[s], token, True) for s, token in next_tokens.items()])


class Peer:
    def __init__(self, path: str, threads: int):
        self.path, self.threads, self.loaded = path, threads, None

    def model(self) -> object:
        if self.loaded is None:
            settings = llama_cpp.llama_model_default_params()
            settings.n_gpu_layers = 0
            self.loaded = llama_cpp.llama_model_load_from_file(self.path.encode(), settings)
            if not self.loaded:
                raise FileNotFoundError(f"llama.cpp cannot load {self.path}")
        return self.loaded

    def sample(self, request: dict) -> dict:
        prompts, new = request["prompts"], request["new_tokens"]
        decoder = Decoder(self.model(), len(prompts), max(map(len, prompts)) + new, self.threads)
        start = time.perf_counter()
        found = replies(decoder, prompts, new)
        seconds, count = time.perf_counter() - start, sum(map(len, found))
        decoder.close()
        return {"seconds": seconds, "new_tokens": count, "new_tokens_per_second": count / seconds, "replies": found}

    def load(self, _request: dict) -> dict:
        self.model()
        return {}

    def answer(self, request: dict) -> dict:
        return {"sample": self.sample, "load": self.load}[request["workload"]](request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("request", nargs="?", help="one JSON request; without it, one per line from stdin")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    answers = take_stdout()
    llama_cpp.llama_backend_init()
    serve(Peer(arguments.model, arguments.threads).answer, arguments.request, answers)


if __name__ == "__main__":
    main()
