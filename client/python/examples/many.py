"""Many generations at once, over one connection. Usage: many.py [ADDRESS [COUNT]]"""

import asyncio
import sys

import sluice


async def main(address: str, count: int) -> None:
    openings = ["The sea", "A storm", "The old captain", "In the garden"]
    async with sluice.AsyncClient(address) as client:
        results = await asyncio.gather(
            *(
                client.complete(openings[i % len(openings)], seed=i, max_tokens=24)
                for i in range(count)
            )
        )
    for i, result in enumerate(results):
        print(f"{i}: {openings[i % len(openings)]}{result.text}".replace("\n", " "))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(
        main(
            arguments[0] if arguments else "localhost:50051",
            int(arguments[1]) if len(arguments) > 1 else 8,
        )
    )
