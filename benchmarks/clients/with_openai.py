"""OpenAI's own client; run by ``benchmarks/clients/drive.py`` in the clients' environment."""

import os

import openai

api = openai.OpenAI(base_url=os.environ["LUMINA_URL"] + "/v1", api_key="any", timeout=300)
stream = api.chat.completions.create(
    model="lumina", messages=[{"role": "user", "content": os.environ["QUESTION"]}], stream=True
)
text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
assert os.environ["EXPECTED"] in text, text
print("streamed the graph's answer")

chat = os.environ["CHAT_MODEL"]
answer = api.chat.completions.create(model=chat, messages=[{"role": "user", "content": "Say hi."}], max_tokens=8)
assert answer.usage, answer
assert answer.usage.completion_tokens > 0, answer
print("chat model with usage")

assert len(api.embeddings.create(model=os.environ["EMBEDDING_MODEL"], input=["a", "b"]).data) == 2
print("embeddings")

try:
    api.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hi"}])
except openai.NotFoundError:
    print("unknown model refused")
else:
    raise SystemExit("the model nobody answered")
