"""A TCP balancer: each connection goes to the next of the ports of 127.0.0.1 that are its arguments. Prints its own port, and runs until
it is killed."""

import asyncio
import itertools
import sys

ports = itertools.cycle(map(int, sys.argv[1:]))


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    try:
        upstream = await asyncio.open_connection("127.0.0.1", next(ports))
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, upstream[1]), copy(upstream[0], writer))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
