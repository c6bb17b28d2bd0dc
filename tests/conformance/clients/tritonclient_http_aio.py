"""Triton's HTTP client for asyncio, in JSON and in binary, all requests at once; runs in the environment ``triton``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tritonclient.http import aio

from conformance.clients import exchange
from conformance.clients.exchange import Case, Results, Tensor
from conformance.clients.tritonclient_http import answered, asked


async def gather(
    client: aio.InferenceServerClient, cases: Sequence[Case], binary: bool
) -> list[list[Tensor] | BaseException]:
    async def ask(case: Case) -> list[Tensor]:
        return answered(case, await client.infer(**asked(case, binary)))

    return await asyncio.gather(*(ask(case) for case in cases), return_exceptions=True)


def main() -> None:
    told = exchange.arguments()
    with asyncio.Runner() as loop:

        async def connect() -> aio.InferenceServerClient:
            return aio.InferenceServerClient(told.http)

        client = loop.run(connect())

        def infer(binary: bool) -> exchange.Mode:
            def mode(cases: Sequence[Case]) -> Results:
                return zip(cases, loop.run(gather(client, cases, binary)), strict=True)

            return mode

        exchange.answer(told.folder, {"json": infer(binary=False), "binary": infer(binary=True)})
        loop.run(client.close())


if __name__ == "__main__":
    main()
