"""What AWS Lambda runs a package on, and the wheels that fit there.

Of AWS' developer guide: "Lambda runtimes" (its table names the Linux under each), "Lambda quotas"
(deployment package).
"""

from dataclasses import dataclass

PYTHONS = {"3.11": 26, "3.12": 34, "3.13": 34, "3.14": 34}
"""Minor version of Python -> of glibc 2 there: Amazon Linux 2 has 2.26, Amazon Linux 2023 2.34."""
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
"""What Lambda calls an architecture -> what wheels do."""
PYTHON = "3.13"
"""The default. AWS' table ends it in June 2029, as it does 3.14, and 3.12 earlier."""
ARCHITECTURE = "x86_64"  # Lambda's own default

PACKED_BYTES_MAX = 50 * 2**20  # of an upload; from S3 it may be larger
UNPACKED_BYTES_MAX = 250 * 2**20  # with all layers
_GLIBC_OLDEST = 17  # manylinux2014: no wheel says less


@dataclass(frozen=True)
class Runtime:
    """A runtime of Lambda: ``Runtime("3.13", "arm64")``."""

    python: str = PYTHON
    architecture: str = ARCHITECTURE

    @property
    def name(self) -> str:
        """Lambda's own: ``python3.13``."""
        return f"python{self.python}"

    def platforms(self) -> list[str]:
        """The platforms of wheels that run there, the best first."""
        machine, glibc = MACHINES[self.architecture], PYTHONS[self.python]
        minors = range(glibc, _GLIBC_OLDEST - 1, -1)
        return [*(f"manylinux_2_{n}_{machine}" for n in minors), f"manylinux2014_{machine}"]
