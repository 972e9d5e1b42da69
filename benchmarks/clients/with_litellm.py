"""LiteLLM as a client; run by ``benchmarks/clients/drive.py`` in the clients' environment."""

import asyncio
import os

import litellm

litellm.suppress_debug_info = True
url, question = os.environ["LUMINA_URL"] + "/v1", os.environ["QUESTION"]
ask = {"model": "openai/lumina", "messages": [{"role": "user", "content": question}]}
reach = {"api_base": url, "api_key": "any", "timeout": 300}

answer = litellm.completion(**ask, **reach)
assert os.environ["EXPECTED"] in answer.choices[0].message.content, answer
print("the graph's answer")

chunks = list(litellm.completion(**ask, **reach, stream=True, stream_options={"include_usage": True}))
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert os.environ["EXPECTED"] in text, text
print("streamed")


async def chat() -> None:
    """The chat model behind, asynchronously."""
    said = await litellm.acompletion(
        model=f"openai/{os.environ['CHAT_MODEL']}",
        messages=[{"role": "user", "content": "Say hi."}],
        max_tokens=8,
        **reach,
    )
    assert said.usage.completion_tokens > 0, said


asyncio.run(chat())
print("chat model with usage")

made = litellm.embedding(model=f"openai/{os.environ['EMBEDDING_MODEL']}", input=["a", "b"], **reach)
assert len(made.data) == 2, made
print("embeddings")

try:
    litellm.completion(model="openai/nobody", messages=ask["messages"], **reach)
except litellm.NotFoundError:
    print("unknown model refused")
else:
    raise SystemExit("the model nobody answered")
