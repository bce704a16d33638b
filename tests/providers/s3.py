"""Amazon S3 as far as a presigned URL goes: it computes the signature itself, and compares.

Written after "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" of the S3
API Reference; moto answers every URL that carries some signature.
"""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from aiohttp import web

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass
class FakeS3:
    """Objects of one region, which those with ``keys`` (access key -> secret) may read."""

    region: str
    keys: dict[str, str]
    objects: dict[str, bytes] = field(default_factory=dict)  # bucket/key -> content
    ahead_s: float = 0.0  # of the machine's clock
    url: str = ""
    said: list[str] = field(default_factory=list)  # why not, for each request

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeS3"]:
        app = web.Application()
        app.router.add_get("/{name:.*}", self._get)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _get(self, request: web.Request) -> web.Response:
        self.said.append(self._why_not(request))
        if self.said[-1]:
            raise web.HTTPForbidden
        content = self.objects[request.path.strip("/")]
        return web.Response(body=content, headers={"ETag": '"1"'})

    def _why_not(self, request: web.Request) -> str:
        words = dict(request.query)
        given = words.pop("X-Amz-Signature", "")
        if words.get("X-Amz-Algorithm") != ALGORITHM:
            return "not signed"
        key, day, region, service, last = words["X-Amz-Credential"].split("/")
        if (region, service, last) != (self.region, "s3", "aws4_request"):
            return f"signed for {region}"
        began = datetime.strptime(words["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if time.time() + self.ahead_s > began.timestamp() + int(words["X-Amz-Expires"]):
            return "expired"
        query = "&".join(f"{_quoted(name)}={_quoted(words[name])}" for name in sorted(words))
        canonical = (
            f"GET\n{quote(request.path)}\n{query}\nhost:{request.host}\n\nhost\nUNSIGNED-PAYLOAD"
        )
        scope = f"{day}/{region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"{ALGORITHM}\n{words['X-Amz-Date']}\n{scope}\n{digest}"
        secret = f"AWS4{self.keys[key]}".encode()
        for part in scope.split("/"):
            secret = hmac.digest(secret, part.encode(), "sha256")
        right = hmac.new(secret, to_sign.encode(), "sha256").hexdigest()
        return "" if hmac.compare_digest(given, right) else "another signature"


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
