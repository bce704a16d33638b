"""The least a function over Redis can be: what ``bench.functions`` compares with."""

import json
import os
from typing import Any

from redis import Redis

redis = Redis.from_url(os.environ["REDIS_URL"])


def handler(_: dict[str, Any], __: Any) -> dict[str, Any]:
    """Says what one key holds."""
    return {"statusCode": 200, "body": json.dumps({"said": redis.get("hello") is not None})}
