"""EC2's error codes: which are a no, which ask for patience, which say that something is gone.

A code that stands in no table here is unclear, never "no capacity" and never "gone".
"""

import re
from collections.abc import Mapping
from contextlib import suppress

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from scheduler.fleet.port import Refused, Unclear

FAULTS = (ClientError, BotoCoreError, ResponseParserError)
"""All that a call can raise; the last, of an answer that is no XML, is none of botocore's own."""

CODES_PAGE = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"
THROTTLING_PAGE = "https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html"
STATE_REASON_PAGE = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html"
COMMON_PAGE = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/CommonErrors.html"
SPOT_ROLE_PAGE = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html"
STS_PAGE = "https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"
LAUNCH_TEMPLATE_PAGE = (
    "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html"
)


def _table(*rows: tuple[str, str, str]) -> Mapping[str, tuple[str, str]]:
    """EC2's code -> the fleet's code, and the page that tells what it means."""
    return {code: (fleet_code, page) for fleet_code, page, codes in rows for code in codes.split()}


REFUSALS = _table(
    (
        "PROVIDER_OUT_OF_STOCK",
        CODES_PAGE,
        "InsufficientInstanceCapacity InsufficientHostCapacity InsufficientCapacity"
        " InsufficientReservedInstanceCapacity InsufficientVolumeCapacity"
        # Spot: what is left goes to others, or costs more than on demand.
        " UnfulfillableCapacity SpotMaxPriceTooLow"
        # This zone's subnet is full, which another zone's need not be.
        " InsufficientFreeAddressesInSubnet",
    ),
    (
        "PROVIDER_QUOTA_EXCEEDED",
        CODES_PAGE,
        "VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded VolumeLimitExceeded"
        " MaxIOPSLimitExceeded AttachmentLimitExceeded ResourceCountExceeded"
        " NetworkInterfaceLimitExceeded PrivateIpAddressLimitExceeded",
    ),
    (
        "PROVIDER_DENIED",
        CODES_PAGE,
        "UnauthorizedOperation AuthFailure Blocked OptInRequired PendingVerification",
    ),
    (
        "PROVIDER_DENIED",
        COMMON_PAGE,
        "AccessDeniedException InvalidClientTokenId MissingAuthenticationToken"
        " SignatureDoesNotMatch NotAuthorized",
    ),
    # The account's first spot machine needs a role that EC2 makes, if its caller may make it.
    ("PROVIDER_DENIED", SPOT_ROLE_PAGE, "AuthFailure.ServiceLinkedRoleCreationNotPermitted"),
    # Of a profile's role, which was to be assumed for the call.
    ("PROVIDER_DENIED", STS_PAGE, "AccessDenied"),
    (
        "PROVIDER_INVALID_ORDER",
        CODES_PAGE,
        # Unsupported: this type is not in this zone, or not with these options.
        "Unsupported UnsupportedOperation UnsupportedInstanceAttribute"
        " EncryptedVolumesNotSupported"
        " InvalidAMIID.Malformed InvalidAMIID.NotFound InvalidAMIID.Unavailable"
        " InvalidBlockDeviceMapping InvalidInstanceType InvalidGroup.NotFound"
        " InvalidGroupId.Malformed"
        " InvalidSecurityGroupID.NotFound InvalidSubnetID.NotFound InvalidSubnet"
        " InvalidKeyPair.NotFound InvalidParameter InvalidParameterCombination"
        " InvalidParameterDependency InvalidParameterValue InvalidPlacementGroup.Unknown"
        " InvalidSnapshot.NotFound InvalidTagKey.Malformed InvalidUserData.Malformed"
        " InvalidZone.NotFound"
        " InvalidInput MissingParameter UnknownParameter ValidationError VPCIdNotSpecified"
        " VPCResourceNotSpecified TagLimitExceeded",
    ),
    (
        "PROVIDER_INVALID_ORDER",
        LAUNCH_TEMPLATE_PAGE,
        "InvalidLaunchTemplateId.Malformed InvalidLaunchTemplateId.NotFound"
        " InvalidLaunchTemplateId.NotFoundException InvalidLaunchTemplateId.VersionNotFound"
        " InvalidLaunchTemplateName.NotFoundException",
    ),
)
"""Of RunInstances: nothing was made, and will not be by the same words."""

THROTTLED: Mapping[str, str] = {
    "RequestLimitExceeded": THROTTLING_PAGE,
    # What botocore itself takes for throttling, at any service of AWS.
    **dict.fromkeys(
        [
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "EC2ThrottledException",
            "RequestThrottledException",
            "TooManyRequestsException",
            "SlowDown",
            "BandwidthLimitExceeded",
        ],
        COMMON_PAGE,
    ),
}
"""The account asks too much -> the page."""

GONE: Mapping[str, str] = dict.fromkeys(
    ("InvalidInstanceID.NotFound", "InvalidVolume.NotFound"), CODES_PAGE
)
"""There is no such thing (or not yet, or it is not told yet) -> the page."""

DEATHS: Mapping[str, tuple[str, str]] = {
    code: (fleet_code, STATE_REASON_PAGE)
    for code, fleet_code in (
        ("Server.InsufficientInstanceCapacity", "PROVIDER_OUT_OF_STOCK"),
        ("Server.SpotInstanceTermination", "SPOT_INTERRUPTED"),
        ("Server.SpotInstanceShutdown", "SPOT_INTERRUPTED"),
        ("Server.InternalError", "PROVIDER_REFUSED"),
        ("Client.InternalError", "PROVIDER_REFUSED"),  # often a disk's key that may not be used
        ("Client.VolumeLimitExceeded", "PROVIDER_QUOTA_EXCEEDED"),
        ("Client.InvalidSnapshot.NotFound", "PROVIDER_INVALID_ORDER"),
    )
}
"""StateReason of a machine that EC2 itself ended -> the fleet's code, and the page."""


def code_of(error: BaseException) -> str:
    """EC2's own word; "" where it said nothing."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def is_gone(error: BaseException) -> bool:
    return code_of(error) in GONE


def refusal(error: BaseException) -> Refused | None:
    """RunInstances' no; None where it said something else, or nothing."""
    known = REFUSALS.get(code_of(error))
    return Refused(known[0], _words(error)) if known else None


def unclear(error: BaseException) -> Unclear:
    """From which nothing follows but that one looks again."""
    throttled = code_of(error) in THROTTLED
    return Unclear(_words(error), throttled=throttled, retry_after_s=_retry_after_s(error))


_SIGNED = re.compile(r"\?[^\s'\"<>]*X-Amz-[^\s'\"<>]*", re.IGNORECASE)
"""The query of a presigned URL, which is a secret."""


def _words(error: BaseException) -> str:
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, ClientError):
        about = error.response.get("Error", {})
        words = f"{about.get('Code', '')}: {about.get('Message', '')}"
    return _SIGNED.sub("?[removed]", words)


def _retry_after_s(error: BaseException) -> float | None:
    if isinstance(error, ClientError):
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        with suppress(ValueError, TypeError):
            seconds = float(headers.get("retry-after"))
            return seconds if 0 < seconds <= 3_600 else None
    return None
