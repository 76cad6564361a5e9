"""Finds the text that the model thinks most likely. Usage: score.py [ADDRESS [TEXT...]]"""

import sys

import sluice

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:50051"
texts = sys.argv[2:] or [
    "He looked at her with great surprise.",
    "He looked at her with great soup.",
    "Surprise great with her at looked he.",
]

with sluice.Client(address) as client:
    scores = {text: client.score(text) for text in texts}
    for text, score in sorted(scores.items(), key=lambda item: item[1].perplexity):
        print(f"perplexity {score.perplexity:8.1f}  {text}")
