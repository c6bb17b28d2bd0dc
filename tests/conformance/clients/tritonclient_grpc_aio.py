"""Triton's gRPC client for asyncio: all requests at once, and one stream for all; runs in the environment ``triton``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from tritonclient.grpc import aio

from conformance.clients import exchange
from conformance.clients.exchange import Case, Results, Tensor
from conformance.clients.tritonclient_grpc import SECONDS, answered, asked

Answers = list[list[Tensor] | BaseException]


async def infer(client: aio.InferenceServerClient, cases: Sequence[Case]) -> Answers:
    async def ask(case: Case) -> list[Tensor]:
        return answered(case, await client.infer(**asked(case), client_timeout=SECONDS))

    return await asyncio.gather(*(ask(case) for case in cases), return_exceptions=True)


async def stream_infer(client: aio.InferenceServerClient, cases: Sequence[Case]) -> Answers:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for case in cases:
            yield asked(case)

    answers: Answers = []
    async for result, error in client.stream_infer(requests(), stream_timeout=SECONDS):
        case = cases[len(answers)]
        try:
            answers.append(answered(case, result, error))
        except Exception as wrong:
            answers.append(wrong)
    return answers


def main() -> None:
    told = exchange.arguments()
    with asyncio.Runner() as loop:

        async def connect() -> aio.InferenceServerClient:
            return aio.InferenceServerClient(told.grpc)

        client = loop.run(connect())

        def mode(ask: Callable[[Any, Sequence[Case]], Coroutine[Any, Any, Answers]]) -> exchange.Mode:
            def answers(cases: Sequence[Case]) -> Results:
                return zip(cases, loop.run(ask(client, cases)), strict=True)

            return answers

        exchange.answer(told.folder, {"infer": mode(infer), "stream_infer": mode(stream_infer)})
        loop.run(client.close())


if __name__ == "__main__":
    main()
