"""Streams a story as it is written. Usage: stream.py [ADDRESS [PROMPT]]"""

import sys

import sluice

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:50051"
prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"

with sluice.Client(address) as client:
    story = client.generate(prompt, temperature=0.8, seed=7, max_tokens=60)
    print(prompt, end="")
    for text in story:
        print(text, end="", flush=True)
    usage = story.result.usage
    print(f"\n[{story.result.finish_reason}, {usage.new_tokens} tokens]")
