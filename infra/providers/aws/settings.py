"""What an operator chooses of the machines in an AWS account."""

from typing import Literal

from msgspec import Struct

from infra.providers import fields
from infra.providers.aws import prices

VOLUME_GB_MAX = 16_384  # of gp3: Amazon EBS User Guide, "General Purpose SSD volumes"
URL_S_MAX = 7 * 86_400  # of SigV4: Amazon S3 User Guide, "Download and upload with presigned URLs"
SAID_AGAIN_S = 900  # a launch is repeated for `Limits.provision_s`, 600, with the same URL
HOLDS_S_MIN = 600  # an image with vLLM is pulled before its agent asks for the model


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[providers.NAME]`` of a fleet file, kind ``aws``.

    Credentials are none of it: boto3 finds them as everywhere (environment, profile, role).
    """

    region: str
    subnets: dict[str, str]  # zone -> the subnet of it in which machines are launched
    types: dict[str, int]  # machine type -> requests that one of it runs well at once
    markets: tuple[Literal["on-demand", "spot"], ...] = ("on-demand",)
    prices: dict[str, float] = {}  # USD an hour on demand, of types that our table does not have
    profile: str = ""  # of ~/.aws/config
    endpoint_url: str = ""  # of EC2, where it is not the region's own
    capacity: int | None = None  # machines at the same time; None: as many as the account may have

    # --- what is launched: a template, or what follows, or a template and what it leaves open ---
    launch_template: str = ""  # lt-…, e.g. the output worker_launch_template_id
    launch_template_version: str = "$Default"
    image: str = ""  # ami-…, or resolve:ssm:NAME
    user_data: str = ""  # a file, sent as it is: no secret may be in it
    instance_profile: str = ""  # a name or ARN: the role with which a machine fetches its token
    security_groups: tuple[str, ...] = ()

    disk: int = 0  # GB of the root disk, a gp3; 0: as the template has it
    disk_iops: int = 3_000
    disk_throughput: int = 500  # MB/s: a model of 16 GB is read in half a minute
    root_device: str = "/dev/xvda"  # the image's: Ubuntu's is /dev/sda1
    data_disk: int = 0  # GB of a second one, empty; 0: none
    data_device: str = "/dev/sdf"
    keep_data_disk: bool = False  # after the machine's end
    kms_key: str = ""  # encrypts the disks; "": the account's own key for that

    # --- a model that each machine fetches by a presigned URL of its own ---
    model_archive: str = ""  # s3://BUCKET/KEY.tar (.tar.gz, .tgz); "": as the user data has it
    model_sha256: str = ""  # of the archive; the agent compares it
    model_holds: int = 3_600  # seconds from its launch in which a machine may begin to fetch
    model_region: str = ""  # the bucket's; "": the machines'
    model_endpoint_url: str = ""  # of S3, where it is not the region's own

    efa: bool = False  # an Elastic Fabric Adapter: only some types have one
    placement_group: str = ""
    address: Literal["private", "public"] = "private"  # under which gateways reach its agent
    tags: dict[str, str] = {}  # more of them, for machines and disks

    def __post_init__(self) -> None:
        fields.fits("region", self.region, r"[a-z]{2}(-[a-z]+)+-\d", "a region, as eu-central-1")
        fields.require(bool(self.subnets), "subnets", "must name at least one, as ZONE = SUBNET")
        for zone, subnet in self.subnets.items():
            rule = f"zones of {self.region}"
            fields.require(zone.startswith(self.region), "subnets", f"must name {rule}, not {zone}")
            fields.fits("subnets", subnet, r"subnet-[0-9a-z]+", "ids as subnet-0ab1")
        fields.require(bool(self.types), "types", "must name at least one, as TYPE = SLOTS")
        for kind, slots in self.types.items():
            fields.fits("types", kind, r"[a-z0-9-]+\.[a-z0-9-]+", "types as g6e.xlarge")
            fields.within("types", slots, 1, 99_999)
            known = self.prices.get(kind) or prices.on_demand(self.region, kind)
            say = f"no price of {kind} in {self.region} is known: say it here"
            fields.require(known is not None, "prices", say)
        for amount in self.prices.values():
            fields.price("prices", amount)
        fields.require(bool(self.markets), "markets", "must name on-demand, spot or both")
        if self.capacity is not None:
            fields.within("capacity", self.capacity, 0, 100_000)
        self._check_launch()
        self._check_model()
        self._check_disks()

    def _check_launch(self) -> None:
        if self.launch_template:
            fields.fits("launch_template", self.launch_template, r"lt-[0-9a-z]+", "as lt-0ab1")
        else:
            for name in ("image", "user_data", "instance_profile"):
                said = bool(getattr(self, name))
                fields.require(said, name, "must be said where there is no launch_template")
            said = bool(self.security_groups)
            fields.require(said, "security_groups", "must be said without a launch_template")
            fields.require(self.disk > 0, "disk", "must be said without a launch_template")
        if self.image:
            shape = r"ami-[0-9a-z]+|resolve:ssm:\S+"
            fields.fits("image", self.image, shape, "ami-… or resolve:ssm:NAME")
        for group in self.security_groups:
            fields.fits("security_groups", group, r"sg-[0-9a-z]+", "ids as sg-0ab1")
        if self.efa:
            # EC2 takes groups of an interface or of the machine, not both, and a template has those
            # of the machine.
            rule = "needs security_groups, and no launch_template"
            fields.require(bool(self.security_groups and not self.launch_template), "efa", rule)
        for name in self.tags:
            ours = name.lower().startswith(("vestibule-", "aws:"))
            fields.require(not ours, "tags", f"{name} is said by the provider itself")
            # Whatever stands here can be read by the machine as metadata: IMDS knows no other keys.
            fields.fits(
                "tags", name, r"[\w+=.,:@-]{1,128}", "keys of letters, digits and + - = . , _ : @"
            )

    def _check_model(self) -> None:
        if not self.model_archive:
            for name in ("model_sha256", "model_region", "model_endpoint_url"):
                fields.require(not getattr(self, name), name, "needs a model_archive")
            return
        bucket, folders = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", r"([\w.=+@-]+/)*"
        # The agent names the model's folder after the file.
        shape = rf"(?a:s3://{bucket}/{folders}\w[\w.-]{{0,190}}\.(tar|tar\.gz|tgz))"
        rule = "s3://BUCKET/KEY, a tar (.tar, .tar.gz, .tgz)"
        fields.fits("model_archive", self.model_archive, shape, rule)
        rule = "the 64 hexadecimal digits of the archive's SHA-256"
        fields.fits("model_sha256", self.model_sha256, r"[0-9a-f]{64}", rule)
        fields.within("model_holds", self.model_holds, HOLDS_S_MIN, URL_S_MAX - SAID_AGAIN_S)

    def _check_disks(self) -> None:
        fields.within("disk", self.disk, 0, VOLUME_GB_MAX)
        fields.within("data_disk", self.data_disk, 0, VOLUME_GB_MAX)
        # gp3's own: at least so much, and what grows with size is left to EC2's own no.
        fields.within("disk_iops", self.disk_iops, 3_000, 80_000)
        fields.within("disk_throughput", self.disk_throughput, 125, 2_000)
        kept = self.keep_data_disk
        fields.require(not kept or self.data_disk > 0, "keep_data_disk", "needs a data_disk")
