"""The engine's side of building images, as far as it is asked: for what a real engine does not do on call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import httpx
import trio
from attrs import define, field

Lines = Sequence[Mapping[str, object]]


def ndjson(lines: Lines) -> httpx.Response:
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return httpx.Response(200, stream=httpx.ByteStream(content))


@define(kw_only=True)
class FakeEngineApi:
    """`images` are references in the store, with their labels. A build that succeeds adds one."""

    images: dict[str, dict[str, str]] = field(factory=dict[str, dict[str, str]])
    pull: httpx.Response | None = None
    build: Lines = ({"stream": "STEP 1/1: FROM x\n"}, {"aux": {"ID": "sha256:1"}})
    import_refusal: str = ""
    builds: list[dict[str, str]] = field(factory=list[dict[str, str]], init=False)
    imported: list[bytes] = field(factory=list[bytes], init=False)
    import_params: list[tuple[str, str]] = field(factory=list[tuple[str, str]], init=False)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer), base_url="http://engine")

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        path, params = request.url.path, dict(request.url.params)
        if path.endswith("/json"):
            return self._inspect(path.removeprefix("/images/").removesuffix("/json"))
        if path == "/build":
            return await self._build(request, params)
        if "fromImage" in params:
            return self.pull or ndjson([{"error": "no such host"}])
        if self.import_refusal:  # without a look at the body
            return httpx.Response(500, json={"message": self.import_refusal})
        # like the engines: what broke off in the middle is not imported
        content = await request.aread()
        self.imported.append(content)
        self.import_params = request.url.params.multi_items()
        self.images[params["repo"]] = {}
        return ndjson([{"status": "sha256:1"}])

    def _inspect(self, reference: str) -> httpx.Response:
        if reference not in self.images:
            return httpx.Response(404, json={"message": f"No such image: {reference}"})
        labels = self.images[reference]
        body = {"Id": "sha256:1", "Size": 5, "Architecture": "amd64", "Config": {"Labels": labels}}
        return httpx.Response(200, json=body)

    async def _build(self, request: httpx.Request, params: dict[str, str]) -> httpx.Response:
        await request.aread()
        self.builds.append(params)
        if any("aux" in line for line in self.build):
            labels = json.loads(params["labels"])
            self.images[params["t"]] = {**labels, "opencode-actors.target": params["target"]}
        return ndjson(self.build)
