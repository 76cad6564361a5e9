"""Writes sharegpt-like.jsonl, beside this script: request lengths such as chats have, for `sluice bench --shapes`.

The lengths are synthetic. Nothing of ShareGPT or of any other collection is in them: each is drawn from a log-normal
distribution whose parameters we chose so that many are short, some are long, and answers are longer than prompts.

  python3 tests/bench/shapes/make_sharegpt_like.py"""

import json
import math
import pathlib
import random

COUNT, SEED = 500, 2023
PROMPT = {"median": 80, "sigma": 1.1, "least": 4, "most": 2048}
OUTPUT = {"median": 220, "sigma": 0.9, "least": 4, "most": 1024}


def draw(generator, median, sigma, least, most):
    return round(min(max(median * math.exp(generator.gauss(0, sigma)), least), most))


def lines():
    yield "# Synthetic: log-normal lengths, drawn by make_sharegpt_like.py. No line comes from a real conversation."
    generator = random.Random(SEED)
    for _ in range(COUNT):
        yield json.dumps({"prompt_tokens": draw(generator, **PROMPT), "output_tokens": draw(generator, **OUTPUT)})


if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("sharegpt-like.jsonl")
    path.write_text("\n".join(lines()) + "\n")
