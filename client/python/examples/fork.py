"""One beginning, several endings, each of a fork of the session. Usage: fork.py [ADDRESS]"""

import sys

import sluice

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:50051"
opening = "It was a dark and stormy night;"

with sluice.Client(address) as client:
    story = client.sessions.create(ttl=3600)
    print(opening + story.complete(opening, seed=1, max_tokens=30).text)
    for i, turn in enumerate((" But then", " At last", " Nobody")):
        ending = story.fork()
        print(f"\n{i}:{turn}{ending.complete(turn, seed=i, max_tokens=24).text}")
        ending.delete()
    story.delete()
