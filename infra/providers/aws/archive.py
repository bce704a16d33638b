"""A model's archive in S3, and the user data by which one machine may fetch it.

Each launch gets a URL of its own, signed for one object and some time: whoever reads it may fetch
that object until then. So it is in the user data of its machine and nowhere else, and the agent
compares the archive's SHA-256 before it uses it.
"""

import base64
from collections.abc import Callable
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import NoCredentialsError

from admission.instance import Order
from infra.providers.aws.calls import CONNECT_S, READ_S, Calls
from infra.providers.aws.settings import SAID_AGAIN_S, Settings
from scheduler.fleet.port import Refused

URL_MARK, SHA256_MARK = b"@VESTIBULE_MODEL@", b"@VESTIBULE_MODEL_SHA256@"
"""What user data says where the agent's settings of these names are to stand."""
USER_DATA_BYTES_MAX = 16_384
"""EC2 User Guide, "Run commands when you launch an EC2 instance": before base64."""
INSTANCE_WORD = "x-vestibule-instance"
"""S3 ignores words that begin with x-, and has them in its access log: S3 User Guide, "Custom
access log information"."""


class Archive:
    """Blocking; for any number of threads. ``user_data``: the operator's file; empty where the
    launch template has it."""

    def __init__(
        self, settings: Settings, calls: Calls, user_data: bytes, clock: Callable[[], float]
    ) -> None:
        self._settings, self._calls, self._clock = settings, calls, clock
        self._script = user_data
        self._bucket, _, self._key = settings.model_archive.removeprefix("s3://").partition("/")
        self._lock = Lock()
        self._signed: dict[str, tuple[float, str]] = {}  # an instance's id -> when, and its URL

    def user_data(self, instance_id: str, order: Order) -> bytes:
        """For one launch. An order that names its own model gets no URL.

        Raises:
            Refused: PROVIDER_INVALID_ORDER, PROVIDER_DENIED.
        """
        script = self._script or self._of_template()
        if wrong := missing(script):
            raise Refused("PROVIDER_INVALID_ORDER", f"user data: {wrong}")
        url = "" if order.model else self._url(instance_id)
        sha256 = self._settings.model_sha256 if url else ""
        whole = script.replace(URL_MARK, url.encode()).replace(SHA256_MARK, sha256.encode())
        if len(whole) > USER_DATA_BYTES_MAX:
            words = f"user data: {USER_DATA_BYTES_MAX} bytes at most, with the model's URL"
            raise Refused("PROVIDER_INVALID_ORDER", words)
        return whole

    def _of_template(self) -> bytes:
        """Its user data: what comes with a launch takes the place of it."""
        told = self._calls.one(
            "describe_launch_template_versions",
            LaunchTemplateId=self._settings.launch_template,
            Versions=[self._settings.launch_template_version],
        )
        version: dict[str, Any] = told["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        return base64.b64decode(version.get("UserData", ""))

    def _url(self, instance_id: str) -> str:
        """The same one while its launch may be repeated: EC2 compares the words that come with a
        token. Another scheduler signs another one, to which EC2 says IdempotentParameterMismatch,
        and finds the machine by its tag."""
        with self._lock:
            since = self._clock() - SAID_AGAIN_S
            self._signed = {name: it for name, it in self._signed.items() if it[0] > since}
            if known := self._signed.get(instance_id):
                return known[1]
        url = self._sign(instance_id)  # outside: a role's credentials may take long to come
        with self._lock:
            return self._signed.setdefault(instance_id, (self._clock(), url))[1]

    def _sign(self, instance_id: str) -> str:
        """In a session of its own, which asks for credentials anew: the longest that can be had."""
        it = self._settings
        region = it.model_region or it.region
        session = boto3.Session(profile_name=it.profile or None, region_name=region)
        self._check_credentials(session.get_credentials())
        client = session.client(
            "s3",
            endpoint_url=it.model_endpoint_url or None,
            config=Config(
                signature_version="s3v4",  # the former one knows no regions
                # The region's own host: from the one of all regions S3 redirects to it, with which
                # the signature is no longer right.
                s3={"addressing_style": "path" if it.model_endpoint_url else "virtual"},
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
            ),
        )

        def name_instance(request: Any, **_: Any) -> None:
            request.params[INSTANCE_WORD] = instance_id

        client.meta.events.register("before-sign.s3.GetObject", name_instance)
        try:
            url: str = client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._key},
                ExpiresIn=it.model_holds + SAID_AGAIN_S,
            )
        finally:
            client.close()
        return url

    def _check_credentials(self, found: Any) -> None:
        """A URL ends with the credentials that signed it: S3 User Guide, "Who can create a
        presigned URL". Better no machine than one that waits for its model in vain."""
        if found is None:
            raise NoCredentialsError
        if not isinstance(found, RefreshableCredentials):
            return
        found.get_frozen_credentials()
        if found.refresh_needed(refresh_in=self._settings.model_holds):
            raise Refused(
                "PROVIDER_DENIED",
                "model_archive: the credentials that would sign its URL end within model_holds"
                f" ({self._settings.model_holds} s), and the URL with them",
            )


def missing(script: bytes) -> str:
    """What user data lacks; "" for nothing."""
    marks = [mark.decode() for mark in (URL_MARK, SHA256_MARK) if mark not in script]
    return f"must say {' and '.join(marks)}, as there is a model_archive" if marks else ""
